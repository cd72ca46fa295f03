import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'mocha';
import { errnoCode, isErrno, systemError } from './errno.ts';
import { checked, libc } from './libc.ts';

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('errno', () => {
  it('recognises the errors of Node and of direct calls by their code', () => {
    const ofNode = thrownBy(() => readFileSync('/absent'));
    const ofCall = thrownBy(() => checked(libc().chdir('/absent'), 'chdir', "'/absent'"));
    for (const error of [ofNode, ofCall]) {
      assert.ok(isErrno(error, 'EACCES', 'ENOENT'));
      assert.ok(!isErrno(error, 'EEXIST'));
    }
    assert.ok(!isErrno(new Error('ENOENT'), 'ENOENT'));
    assert.ok(!isErrno('ENOENT', 'ENOENT'));
  });

  it('gives an error its code, its negative number and its call', () => {
    for (const errno of ['EBUSY', 16]) {
      const error = systemError('rmdir', errno, "'/a'");
      assert.deepEqual(
        [error.code, error.errno, error.syscall, error.message],
        ['EBUSY', -16, 'rmdir', "EBUSY: rmdir '/a'"],
      );
    }
    assert.equal(errnoCode(11), 'EAGAIN');
    assert.equal(errnoCode(4000), 'errno 4000');
  });
});
