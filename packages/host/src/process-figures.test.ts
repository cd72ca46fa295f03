import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, it } from 'mocha';
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
