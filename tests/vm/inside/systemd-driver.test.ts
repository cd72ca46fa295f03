// The systemd driver on cgroup v2.

import { limitsSuite } from './limits-suite.ts';

limitsSuite('systemd');
