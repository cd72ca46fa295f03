// Sessions of containers in a Sentry of the real runsc.

import { sessionSuite } from '@cribus/runtime-worker/session-suite.ts';
import { probeGvisor } from './driver.ts';

sessionSuite({ handler: 'gvisor', family: 'gvisor', engine: 'runsc', probe: probeGvisor });
