import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { PHASE_NAMES, planPhases } from './phases.ts';

describe('the phases of the virtual machine', () => {
  it('are all of them in order, with critest where there is one', () => {
    const all = planPhases([], true);
    assert.deepEqual(
      all.filter((name) => name !== 'reboot'),
      PHASE_NAMES,
    );
    assert.deepEqual(
      planPhases([], false),
      all.filter((name) => name !== 'critest'),
    );
  });

  it('bring what they need with them, in the order of the machine', () => {
    assert.deepEqual(planPhases(['rebooted', 'apparmor'], false), [
      'upgraded',
      'reboot',
      'rebooted',
      'apparmor',
    ]);
  });

  it('are refused by name where there are none of it, or no critest', () => {
    assert.throws(() => planPhases(['reboot'], true), /no phase "reboot"/);
    assert.throws(() => planPhases(['critest'], false), /needs a critest/);
  });
});
