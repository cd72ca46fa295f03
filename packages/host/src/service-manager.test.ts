import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'mocha';
import { readServiceManager } from './service-manager.ts';

describe('the service manager', () => {
  it('is told by datagrams on its socket', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'notify-'));
    const path = join(directory, 'socket');
    // Node has no unix datagrams; the receiving end is perl's, which every Debian has.
    const receiver = spawn('perl', ['-e', RECEIVE, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(receiver.stdout, 'data');
      const manager = readServiceManager({ NOTIFY_SOCKET: path });
      const received = once(receiver.stdout, 'data');
      manager.notify('READY=1\nSTATUS=serving');
      assert.equal(String((await received)[0]), 'READY=1\nSTATUS=serving');
    } finally {
      receiver.kill();
      rmSync(directory, { recursive: true });
    }
  });

  it('throws what is wrong with a socket that nobody reads', () => {
    const manager = readServiceManager({ NOTIFY_SOCKET: join(tmpdir(), 'no-such-socket') });
    assert.throws(() => manager.notify('READY=1'), { code: 'ENOENT' });
  });

  it('does nothing where there is none', () => {
    const manager = readServiceManager({});
    manager.notify('READY=1');
    assert.equal(manager.watchdogMs, undefined);
    assert.deepEqual(manager.listenFds, []);
  });

  it('reads the watchdog and the sockets that are for this process, and forgets the variables', () => {
    const environment: NodeJS.ProcessEnv = {
      NOTIFY_SOCKET: '@manager',
      WATCHDOG_USEC: '30000000',
      WATCHDOG_PID: `${process.pid}`,
      LISTEN_PID: `${process.pid}`,
      LISTEN_FDS: '2',
      LISTEN_FDNAMES: 'cri:other',
      PATH: '/bin',
    };
    const manager = readServiceManager(environment);
    assert.equal(manager.watchdogMs, 30_000);
    assert.deepEqual(manager.listenFds, [3, 4]);
    assert.deepEqual(environment, { PATH: '/bin' });
  });

  it('leaves what is meant for another process alone', () => {
    const other = `${process.pid + 1}`;
    const manager = readServiceManager({
      WATCHDOG_USEC: '30000000',
      WATCHDOG_PID: other,
      LISTEN_PID: other,
      LISTEN_FDS: '1',
    });
    assert.equal(manager.watchdogMs, undefined);
    assert.deepEqual(manager.listenFds, []);
  });
});

const RECEIVE = `
use Socket; $| = 1;
socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die; bind($s, sockaddr_un($ARGV[0])) or die $!;
print "bound"; recv($s, my $data, 4096, 0); print $data;
`;
