import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'mocha';
import { deviceAt, listDevices, makeDevice } from './devices.ts';

describe('devices', () => {
  it('lists the host devices, none of the skipped directories, no symlinks', () => {
    const devices = listDevices();
    const zero = devices.find((device) => device.path === '/dev/zero');
    assert.deepEqual(
      [zero?.type, zero?.major, zero?.minor, zero?.mode, zero?.uid],
      ['char', 1, 5, 0o666, 0],
    );
    assert.ok(!devices.some(({ path }) => path.startsWith('/dev/pts/') || path === '/dev/stdin'));
    assert.deepEqual(listDevices('/dev/null').length, 1);
    assert.throws(() => listDevices('/dev/absent'), { code: 'ENOENT' });
  });

  it('makes nodes with exact numbers and permission bits', () => {
    const directory = mkdtempSync(join(tmpdir(), 'devices-'));
    try {
      const cases = [
        ['char', 0o622, 1, 3],
        ['block', 0o660, 259, 70000],
        ['fifo', 0o600, 0, 0],
      ] as const;
      for (const [type, mode, major, minor] of cases) {
        const path = join(directory, type);
        makeDevice(path, type, mode, major, minor);
        assert.deepEqual(deviceAt(path), { path, type, major, minor, mode, uid: 0, gid: 0 });
        assert.throws(() => makeDevice(path, type, mode, major, minor), { code: 'EEXIST' });
      }
      assert.equal(listDevices(directory).length, 2);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
