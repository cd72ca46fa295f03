// The sandbox manager: owner of the node's sandboxes.

import { runService } from '@cribus/chassis/service.ts';
import { startSandboxManager } from './sandbox-owner.ts';

await runService('sandbox-manager', startSandboxManager);
