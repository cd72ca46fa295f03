import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { reasonIn, versionOf } from './criu.ts';

describe("criu's words", () => {
  it('become one line without places of its source', () => {
    const said = `Warn  (criu/kerndat.c:1153): no userfaultfd
Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
Error (criu/vdso.c:613): vdso: Failed to fill self vdso symtable
`;
    assert.equal(
      reasonIn(Buffer.from(said)),
      'vdso: Unexpected rt vDSO area bounds; vdso: Failed to fill self vdso symtable',
    );
    assert.equal(reasonIn(Buffer.from('no such option\n')), 'no such option');
    assert.equal(reasonIn(Buffer.alloc(0)), 'it does not say why');
    assert.match(
      reasonIn(Buffer.from('criu: error while loading shared libraries: libnet.so.1')),
      /loading shared libraries/,
    );
    assert.equal(versionOf('Version: 3.17.1\nGitID: x\n'), '3.17.1');
  });
});
