import assert from 'node:assert/strict';
import { bootId } from '@cribus/host/processes.ts';
import { describe, it } from 'mocha';
import { isLoggedVictim } from './exits.ts';

describe('the end of a container whose cgroup is gone', () => {
  it('was for memory where the kernel logged it, of this boot and unless somebody asked for it', () => {
    const log =
      '<3>[ 2.000001] Memory cgroup out of memory: Killed process 8 (sh) total-vm:22748kB';
    const process = { pid: 8, startTimeTicks: 1n, bootId: bootId() };
    const dead = { exitCode: 137, process, stopRequested: false };
    const others = [
      { ...dead, exitCode: 1 },
      { ...dead, stopRequested: true },
      { ...dead, process: { ...process, pid: 80 } },
      { ...dead, process: { ...process, bootId: 'another' } },
      { ...dead, process: undefined },
    ];
    assert.deepEqual(
      [dead, ...others].map((each) => isLoggedVictim(each, log)),
      [true, ...others.map(() => false)],
    );
    assert.equal(isLoggedVictim(dead, ''), false);
  });
});
