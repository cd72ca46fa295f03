import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { isSliceName, pathOfCgroupsPath, pathOfParent, slicePath } from './cgroup-slices.ts';

describe('systemd slices', () => {
  it('nest by the dashes of their names', () => {
    assert.equal(slicePath('kubepods.slice'), '/kubepods.slice');
    assert.equal(
      slicePath('kubepods-burstable-pod1_2.slice'),
      '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice',
    );
    assert.equal(slicePath('-.slice'), '');
  });

  it('hold the scope of what an engine was given', () => {
    assert.equal(
      pathOfCgroupsPath('kubepods-pod1.slice:cribus:c0ffee'),
      '/kubepods.slice/kubepods-pod1.slice/cribus-c0ffee.scope',
    );
    assert.equal(pathOfCgroupsPath('/kubepods/pod1/c0ffee'), '/kubepods/pod1/c0ffee');
    assert.equal(pathOfCgroupsPath(''), '');
  });

  it('are found from the parent that CRI names, which is a path elsewhere', () => {
    assert.equal(pathOfParent('kubepods-pod1.slice'), '/kubepods.slice/kubepods-pod1.slice');
    assert.equal(
      pathOfParent('/kubepods.slice/kubepods-pod1.slice'),
      '/kubepods.slice/kubepods-pod1.slice',
    );
    assert.equal(pathOfParent('/kubepods/pod1/'), '/kubepods/pod1');
    for (const none of ['', '/', '-.slice', '/a/../b']) assert.equal(pathOfParent(none), '', none);
  });

  it('have names that systemd takes', () => {
    for (const name of ['a.slice', 'kubepods-besteffort-pod0_1.slice', '-.slice']) {
      assert.equal(isSliceName(name), true, name);
    }
    for (const name of [
      '',
      'kubepods',
      '.slice',
      '-a.slice',
      'a-.slice',
      'a--b.slice',
      'a/b.slice',
    ]) {
      assert.equal(isSliceName(name), false, name);
    }
  });
});
