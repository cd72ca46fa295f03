// The worker of every handler of family gvisor.

import { runService } from '@cribus/chassis/service.ts';
import { startFamily } from '@cribus/runtime-worker/start-handler.ts';
import { probeGvisor } from './driver.ts';

await runService('runtime-gvisor', (service) => startFamily(service, 'gvisor', probeGvisor));
