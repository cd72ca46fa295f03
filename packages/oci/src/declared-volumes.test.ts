import assert from 'node:assert/strict';
import { Mount } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { declaredDestinations } from './declared-volumes.ts';

function check(volumes: readonly string[], mounted: readonly string[], expected: string[]): void {
  const image = {
    architecture: 'amd64',
    os: 'linux',
    config: { Volumes: Object.fromEntries(volumes.map((path) => [path, {}])) },
    rootfs: { diff_ids: [] },
  };
  const mounts = mounted.map((containerPath) => Mount.fromPartial({ containerPath }));
  assert.deepEqual(declaredDestinations(image, mounts), expected);
}

describe('volumes that an image declares', () => {
  it('are each a path once, parents first', () => {
    check(['/b/c', '/a/', '/a', '/b'], [], ['/a', '/b', '/b/c']);
  });

  it('give way to a mount of the request at or above them, and not to one below', () => {
    check(['/data', '/logs', '/etc/x'], ['/data/', '/logs/deep', '/etc'], ['/logs']);
    check(['/database'], ['/data'], ['/database']);
  });

  it('are neither the root, nor relative, nor in a file system of the kernel', () => {
    check(['/', 'data', '/sys/fs/cgroup', '/proc', '/dev/shm', '/a/../..', ''], [], []);
  });

  it('are none where the image says nothing of them', () => {
    check([], ['/data'], []);
  });
});
