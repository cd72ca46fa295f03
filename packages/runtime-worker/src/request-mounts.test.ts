import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Mount, MountPropagation } from '@cribus/contracts/gen/cri/v1/api.ts';
import { bindMount, unmount } from '@cribus/host/mounts.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { resolveMounts } from './request-mounts.ts';

const {
  PROPAGATION_PRIVATE: PRIVATE,
  PROPAGATION_HOST_TO_CONTAINER: HOST_TO_CONTAINER,
  PROPAGATION_BIDIRECTIONAL: BIDIRECTIONAL,
} = MountPropagation;

// Needs root.
describe("a mount's propagation", () => {
  let directory = '';
  const at = (name: string) => join(directory, name);
  const resolve = async (name: string, more: Partial<Mount>) => {
    const mount = Mount.fromPartial({ containerPath: '/v', hostPath: at(name), ...more });
    return await resolveMounts('c1', [mount], new Map());
  };

  beforeEach(() => {
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'propagation-')));
    for (const name of ['private', 'shared', 'slave']) mkdirSync(at(name));
    bindMount(at('private'), at('private'), { propagation: 'private' });
    bindMount(at('shared'), at('shared'), { propagation: 'shared' });
    bindMount(at('shared'), at('slave'), { propagation: 'slave' });
  });
  afterEach(() => {
    for (const name of ['slave', 'shared', 'private']) unmount(at(name));
    rmSync(directory, { recursive: true });
  });

  it('is refused where the mount of the host has none of it', async () => {
    for (const [name, propagation, why] of [
      ['private', BIDIRECTIONAL, /can't be seen by the host, .* is private and not shared/],
      ['slave', BIDIRECTIONAL, /can't be seen by the host, .* is slave and not shared/],
      ['private', HOST_TO_CONTAINER, /can't see .* is private and neither shared nor slave/],
    ] as const) {
      const refusal = { kind: 'wrong_state', message: why };
      await assert.rejects(resolve(name, { propagation }), refusal, name);
    }
  });

  it('is taken where there is some, and asks for nothing where there is to be none', async () => {
    for (const [name, propagation] of [
      ['private', PRIVATE],
      ['slave', HOST_TO_CONTAINER],
      ['shared', HOST_TO_CONTAINER],
      ['shared', BIDIRECTIONAL],
    ] as const) {
      const [resolved] = await resolve(name, { propagation });
      assert.equal(resolved?.source, at(name));
    }
  });

  it('that contradicts a recursively read-only mount is left to who builds the spec', async () => {
    const contradiction = {
      readonly: true,
      recursiveReadOnly: true,
      propagation: HOST_TO_CONTAINER,
    };
    assert.equal((await resolve('private', contradiction)).length, 1);
  });
});
