import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, it } from 'mocha';
import { tcpCounts, udpCounts } from './network-figures.ts';
import { openFilesSoftLimit, readProcessFigures } from './process-figures.ts';
import { spawn } from './spawn.ts';

describe('figures of processes', () => {
  it('counts threads, descriptors and sockets of this process', async () => {
    const before = readProcessFigures([process.pid]);
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const during = readProcessFigures([process.pid]);
    server.close();
    assert.equal(during?.processes, 1n);
    assert.ok((during?.threads ?? 0n) > 1n);
    assert.ok((during?.running ?? 0n) >= 1n, 'the thread that asks runs');
    assert.equal((during?.sockets ?? 0n) - (before?.sockets ?? 0n), 1n);
    assert.ok((during?.fileDescriptors ?? 0n) > (during?.sockets ?? 0n));
    assert.ok((during?.runNs ?? 0n) > 0n);
    assert.equal(during?.openFilesSoftLimit, openFilesSoftLimit(process.pid));
  });

  it('leaves out what is gone, and tells stopped from sleeping', async () => {
    const child = spawn({ command: 'sleep', args: ['60'] });
    process.kill(child.pid, 'SIGSTOP');
    for (
      let tries = 0;
      readProcessFigures([child.pid])?.stopped !== 1n && tries < 200;
      tries += 1
    ) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const stopped = readProcessFigures([child.pid]);
    process.kill(child.pid, 'SIGKILL');
    await child.exited;
    assert.deepEqual([stopped?.stopped, stopped?.sleeping, stopped?.threads], [1n, 0n, 1n]);
    const gone = readProcessFigures([child.pid]);
    assert.deepEqual([gone?.processes, gone?.threads, gone?.fileDescriptors], [0n, 0n, 0n]);
  });
});

describe('figures of sockets', () => {
  const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt';
  it('counts TCP sockets by state', () => {
    const line = (state: string) =>
      `   0: 0100007F:1F90 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000 0 0 1 1`;
    const text = [head, line('0A'), line('01'), line('01'), ''].join('\n');
    const counts = Object.fromEntries(
      tcpCounts('tcp', text).map(({ state, count }) => [state, count]),
    );
    assert.equal(Object.keys(counts).length, 11);
    assert.deepEqual([counts['listen'], counts['established'], counts['close']], [1n, 2n, 0n]);
  });

  it('counts UDP sockets, their queues and what was dropped', () => {
    const text = [
      head,
      '  10: 00000000:0044 00000000:0000 07 00000010:00000A00 00:00000000 00000000 0 0 1 2 0 3',
    ].join('\n');
    assert.deepEqual(
      udpCounts('udp', text).map(({ state, count }) => [state, count]),
      [
        ['listen', 1n],
        ['dropped', 3n],
        ['rxqueued', 0xa00n],
        ['txqueued', 16n],
      ],
    );
  });
});
