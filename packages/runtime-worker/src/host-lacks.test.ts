// What is said of a host that lacks something, and of one that lacks nothing.

import assert from 'node:assert/strict';
import { CAPABILITIES } from '@cribus/oci/capabilities.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import { describe, it } from 'mocha';
import { hostLacks } from './host-lacks.ts';

const WHOLE: HostFacts = {
  cgroupVersion: 'v2',
  cgroupDriver: 'systemd',
  capabilities: CAPABILITIES,
  oomScoreAdjFloor: -1000,
  appArmor: true,
  selinux: false,
  seccomp: true,
  ociVersion: '1.0.2',
  arch: 'x64',
  hugetlb: true,
  devices: [],
};

describe('what a host lacks', () => {
  it('is nothing on a whole one', () => {
    assert.deepEqual(hostLacks(WHOLE), []);
    assert.deepEqual(hostLacks({ ...WHOLE, appArmor: false, selinux: true }), []);
  });

  it('is told one by one, with what follows', () => {
    const lacks = hostLacks({
      ...WHOLE,
      oomScoreAdjFloor: 0,
      capabilities: CAPABILITIES.filter((name) => name !== 'CAP_SYS_RESOURCE'),
      appArmor: false,
      seccomp: false,
      swapAccounting: false,
    });
    assert.deepEqual(
      lacks.map(
        (sentence) =>
          /oom_score_adj below 0|CAP_SYS_RESOURCE|seccomp|AppArmor|swap/.exec(sentence)?.[0],
      ),
      ['oom_score_adj below 0', 'CAP_SYS_RESOURCE', 'seccomp', 'AppArmor', 'swap'],
    );
  });
});
