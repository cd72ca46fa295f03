// The worker of every handler of family runc: runc itself, and crun.

import { runService } from '@cribus/chassis/service.ts';
import { startFamily } from '@cribus/runtime-worker/start-handler.ts';
import { probeRunc } from './driver.ts';

await runService('runtime-runc', (service) => startFamily(service, 'runc', probeRunc));
