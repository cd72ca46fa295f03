// The cgroupfs driver on cgroup v2, switched to as the documentation says.

import { limitsSuite } from './limits-suite.ts';

limitsSuite('cgroupfs');
