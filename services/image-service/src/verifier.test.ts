import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isFailure } from '@cribus/contracts/failure.ts';
import { hostPlatform } from '@cribus/contracts/image-platform.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { type ImageStack, openImageStack } from './testing/image-stack.ts';
import {
  publishImage,
  type RegistryServer,
  startRegistryServer,
} from './testing/registry-server.ts';
import { buildTar } from './testing/tar-builder.ts';

const layer = buildTar([{ name: 'hello', data: 'hello' }]);

describe('the verifier of images', () => {
  let directory: string;
  let registry: RegistryServer;
  let stack: ImageStack;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cribus-verifier-'));
    registry = await startRegistryServer();
    stack = await openImageStack(
      `[images]\nverifier = "${directory}/verify"\nverifier_timeout_s = 1\n`,
    );
  });
  afterEach(async () => {
    await registry.close();
    await stack.close();
    await rm(directory, { recursive: true });
  });

  const program = (body: string) =>
    writeFile(join(directory, 'verify'), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  const pull = (image: string) =>
    stack.pull({
      image,
      auth: undefined,
      platform: hostPlatform(),
      signal: new AbortController().signal,
    });

  it('is told name, digest and descriptor, and what it agrees to is pulled', async () => {
    await program(
      `echo "$@" > ${directory}/argv; cat > ${directory}/stdin; env > ${directory}/env`,
    );
    const image = publishImage(registry, { path: 'a/b', tag: 'v1', layers: [layer] });
    assert.equal((await pull(`${registry.host}/a/b:v1`)).imageId, image.id);
    const said = (name: string) => readFileSync(join(directory, name), 'utf8');
    assert.equal(
      said('argv'),
      `-name ${registry.host}/a/b:v1 -digest ${image.digest} -stdin-media-type application/vnd.oci.descriptor.v1+json\n`,
    );
    const { mediaType, digest, size } = JSON.parse(said('stdin')) as Record<string, unknown>;
    assert.equal(digest, image.digest);
    assert.match(String(mediaType), /manifest/);
    assert.ok(Number(size) > 100);
    const names = said('env').match(/^\w+(?==)/gm) ?? [];
    assert.deepEqual(
      names.filter((name) => !['PATH', 'PWD', 'SHLVL', '_', 'OLDPWD'].includes(name)),
      [],
    );
  });

  const refusals: readonly (readonly [string, string | undefined, RegExp])[] = [
    ['says no, for its reason', 'echo "no signature of ours"; exit 1', /: no signature of ours$/],
    ['says no on standard error', 'echo broken >&2; exit 3', /: broken$/],
    ['says nothing', 'exit 7', /it exited with 7 and said nothing$/],
    ['is killed', 'kill -9 $$', /it was ended by signal 9$/],
    ['is too slow', 'sleep 60', /it gave no verdict within 1 s$/],
    ['is not there', undefined, /it could not be run: .*ENOENT/],
  ];
  for (const [what, body, reason] of refusals) {
    it(`refuses an image, and fetches and keeps nothing of it, when the program ${what}`, async () => {
      if (body !== undefined) await program(body);
      publishImage(registry, { path: 'a/b', tag: 'v1', layers: [layer] });
      await assert.rejects(
        () => pull(`${registry.host}/a/b:v1`),
        (error: unknown) => {
          assert.ok(isFailure(error, 'kubelet_reason'), String(error));
          assert.match(error.message, /^SignatureValidationFailed: pull /);
          assert.match(error.message, reason);
          return true;
        },
      );
      assert.deepEqual(
        registry.requests.filter(({ url }) => url.includes('/blobs/')),
        [],
      );
      const { layers, content, records } = stack.store.paths;
      const left = [layers, content, records].flatMap((path) =>
        existsSync(path) ? readdirSync(path) : [],
      );
      assert.deepEqual(left, []);
    });
  }

  it('is asked again for an image that is here already', async () => {
    await program('exit 0');
    const image = publishImage(registry, { path: 'a/b', tag: 'v1', layers: [layer] });
    await pull(`${registry.host}/a/b:v1`);
    await program('echo revoked; exit 1');
    await assert.rejects(() => pull(`${registry.host}/a/b@${image.digest}`), /: revoked$/);
    await assert.rejects(() => pull(`${registry.host}/a/b:v1`), /: revoked$/);
  });
});
