import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, openSync, renameSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'mocha';
import { boundPath, removeLeftSocket } from './sockets.ts';

describe('a unix socket in the way', () => {
  it('is removed where nobody listens on it, and left to who does', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'cribus-socket-'));
    const path = join(directory, 'a.sock');
    try {
      assert.equal(await removeLeftSocket(path), true);
      const server = createServer().listen(path);
      await new Promise((resolve) => server.once('listening', resolve));
      assert.equal(await removeLeftSocket(path), false);
      assert.equal(existsSync(path), true);
      // Closed under another name, so that the file stays as after a kill.
      renameSync(path, `${path}.moved`);
      await new Promise((resolve) => server.close(resolve));
      renameSync(`${path}.moved`, path);
      assert.equal(await removeLeftSocket(path), true);
      assert.equal(existsSync(path), false);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('the path of a socket', () => {
  it('is where it listens, also one with spaces, and nothing for what is no socket', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'cribus-socket-'));
    const path = join(directory, 'one of two.sock');
    const server = createServer().listen(path);
    const file = openSync('/dev/null', 'r');
    try {
      await new Promise((resolve) => server.once('listening', resolve));
      const { _handle } = server as unknown as { readonly _handle: { readonly fd: number } };
      assert.equal(boundPath(_handle.fd), path);
      assert.equal(boundPath(file), undefined);
    } finally {
      closeSync(file);
      server.close();
      rmSync(directory, { recursive: true });
    }
  });
});
