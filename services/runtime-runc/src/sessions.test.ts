// Sessions of containers of the real runc and the real crun.

import { sessionSuite } from '@cribus/runtime-worker/session-suite.ts';
import { probeRunc } from './driver.ts';

for (const engine of ['runc', 'crun']) {
  sessionSuite({ handler: engine, family: 'runc', engine, probe: probeRunc });
}
