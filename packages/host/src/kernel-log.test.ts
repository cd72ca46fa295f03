import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'mocha';
import { detectCgroups } from './cgroups.ts';
import { readKernelLog, wasKilledForMemory } from './kernel-log.ts';
import { spawn } from './spawn.ts';

const HOG = 'read go; x=a; while :; do x=$x$x$x$x; done';

describe('the log of the kernel', () => {
  const host = detectCgroups();
  const cgroup = `/kernel-log-test-${process.pid}`;
  afterEach(() => host.remove(cgroup));

  it('has who was killed for memory, by the number that it has on the host', () => {
    const log = [
      '<6>[ 1.000001] Out of memory (oom_kill_allocating_task): Killed process 7 (a b) total-vm:1kB',
      '<3>[ 2.000001] Out of memory: Killed process 8 (sh) total-vm:22748kB, anon-rss:14976kB',
      '<3>[ 3.000001] Memory cgroup out of memory: Killed process 91 (dd) total-vm:1kB',
      '<6>[ 4.000001] oom_reaper: reaped process 92 (dd), now anon-rss:0kB',
    ].join('\n');
    const killed = [1, 7, 8, 9, 91, 92].filter((pid) => wasKilledForMemory(pid, log));
    assert.deepEqual(killed, [7, 8, 91]);
    assert.equal(wasKilledForMemory(1, ''), false);
  });

  it('tells it of a process of this host, where it may be read', async () => {
    host.create(cgroup);
    const bytes = 16n * 1024n * 1024n;
    await host.setLimits(cgroup, { memoryBytes: bytes, memoryAndSwapBytes: bytes });
    const child = spawn({ command: 'sh', args: ['-c', HOG], stdin: 'pipe' });
    await host.join(cgroup, child.pid);
    child.stdin?.end('go\n');
    assert.equal((await child.exited).signal, 9);
    assert.equal(host.oomKills(cgroup), 1);
    assert.equal(wasKilledForMemory(child.pid), readKernelLog() !== '');
    assert.equal(wasKilledForMemory(process.pid), false);
  });
});
