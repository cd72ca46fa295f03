// Layers and requests made to do harm or made wrongly: nothing of the host is read or written, the
// answer has the right code, and nothing of a refused image stays.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { digestOf } from '@cribus/cli/tour/image.ts';
import {
  ImageStatusRequest,
  PullImageRequest,
  RemoveImageRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, beforeEach, describe, it } from 'mocha';
import { type ArchiveEntry, archive } from './harness/archive.ts';
import { type Composition, composeImage } from './harness/compose-image.ts';
import { type FaultyRegistry, startFaultyRegistry } from './harness/faulty-registry.ts';
import { differences, readTree } from './harness/file-tree.ts';
import {
  CONTAINED_LAYERS,
  link,
  MALFORMED_REFERENCES,
  REFUSED_LAYERS,
  symlink,
} from './harness/hostile-entries.ts';
import {
  failureOf,
  imagesDirectory,
  pullImage,
  type Refusal,
  refusePull,
  removeAllImages,
  storedImages,
} from './harness/image-calls.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { type Stack, startStack } from './harness/stack.ts';

const BLOCK_BYTES = 512;
const MUTATIONS = 60;
const broken: Refusal = {
  code: 'DATA_LOSS',
  message: /tar archive|unpack|decompress|digest|diffID/,
};

describe('hostile and broken layers', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let registry: FaultyRegistry;
  /** A directory of the host that layers try to reach; nothing may change in it. */
  let victim: string;
  before(async () => {
    host = snapshotHost();
    victim = mkdtempSync(join(tmpdir(), 'cribus-victim-'));
    mkdirSync(join(victim, 'sub'));
    writeFileSync(join(victim, 'secret'), 'of the host', { mode: 0o600 });
    registry = await startFaultyRegistry();
    stack = await startStack();
  });
  beforeEach(async () => {
    await removeAllImages(stack.cri);
    registry.reset();
  });
  after(async () => {
    await stack.destroy();
    await registry.stop();
    rmSync(victim, { recursive: true, force: true });
    assertNothingLeaked(host);
  });

  /** Serves an image and answers its name. */
  function serve(composition: Composition): string {
    registry.publish('hostile/app', 'v1', composeImage(composition));
    return `${registry.host}/hostile/app:v1`;
  }

  /** Pulls one layer that must be taken; answers the tree that it became. */
  async function unpackOf(layer: Buffer) {
    await pullImage(stack.cri, serve({ layers: [layer] }));
    const { layers } = await storedImages(stack);
    assert.equal(layers.length, 1);
    return readTree(join(imagesDirectory(stack), 'layers', layers[0] ?? ''));
  }

  for (const [what, entries] of REFUSED_LAYERS) {
    it(`a layer that ${what} is DATA_LOSS, touches nothing of the host and leaves nothing`, async () => {
      const before = readTree(victim);
      const good: ArchiveEntry = { name: 'good', data: 'unpacked before the bad entry' };
      const layers = [archive([good]), archive([good, ...entries(victim)])];
      await refusePull(stack, serve({ layers }), broken);
      assert.deepEqual(differences(readTree(victim), before), []);
    });
  }

  for (const [what, entries, result] of CONTAINED_LAYERS) {
    it(`${what}: stays within the layer, and nothing of the host changes`, async () => {
      const before = readTree(victim);
      const tree = await unpackOf(archive(entries(victim)));
      assert.ok(tree[result.replace('%', victim.slice(1))] !== undefined, Object.keys(tree).join());
      assert.deepEqual(differences(readTree(victim), before), []);
    });
  }

  it("a layer's attributes can't speak to overlayfs or to the host's labels", async () => {
    const tree = await unpackOf(
      archive([
        {
          name: 'd/',
          xattrs: {
            'trusted.overlay.redirect': victim,
            'trusted.overlay.opaque': 'y',
            'user.overlay.opaque': 'y',
            'user.fine': 'kept',
          },
        },
      ]),
    );
    assert.match(tree['d'] ?? '', /user\.fine/);
    assert.doesNotMatch(tree['d'] ?? '', /overlay/);
  });

  it('a layer cut anywhere, or with changed bytes, is refused as DATA_LOSS or unpacked, never answered otherwise, and nothing leaks out', async () => {
    const before = readTree(victim);
    const whole = archive([
      { name: 'dir/', mtimeNs: 1_500_000_000n },
      { name: 'dir/file', data: 'content '.repeat(200), xattrs: { 'user.a': 'b' } },
      symlink('s', victim),
      link('h', 'dir/file'),
      { name: 'n'.repeat(150), data: 'long name' },
      { name: 'c', type: '3', major: 1, minor: 3 },
      { name: 'dir/.wh.x' },
    ]);
    const seed = createHash('sha256').update(String(process.pid)).digest();
    const outcomes = new Map<string, number>();
    for (let index = 0; index < MUTATIONS; index += 1) {
      const layer = mutate(whole, createHash('sha256').update(seed).update(`${index}`).digest());
      const name = serve({ layers: [layer], compression: 'none' });
      const state = await storedImages(stack);
      let outcome = 'pulled';
      try {
        await pullImage(stack.cri, name);
      } catch (error) {
        outcome = `code ${(error as { code?: number }).code}`;
        assert.deepEqual(await storedImages(stack), state, `${index} of ${seed.toString('hex')}`);
        assert.match(outcome, /code 15/, `${index} of ${seed.toString('hex')}: ${error}`);
      }
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      await removeAllImages(stack.cri);
      assert.deepEqual(differences(readTree(victim), before), [], seed.toString('hex'));
    }
    assert.ok((outcomes.get('code 15') ?? 0) > MUTATIONS / 4, JSON.stringify([...outcomes]));
    assert.ok(!existsSync('/new'));
    assert.equal(readFileSync(join(victim, 'secret'), 'utf8'), 'of the host');
  });

  it('a gzip or zstd layer that is cut or damaged is DATA_LOSS and leaves nothing', async () => {
    const tar = archive([{ name: 'a', data: Buffer.alloc(200_000, 'abc') }]);
    for (const compression of ['gzip', 'zstd'] as const) {
      const image = composeImage({ layers: [tar], compression });
      const blob = image.layers[0]?.data ?? Buffer.alloc(0);
      const damaged = Buffer.from(blob);
      damaged[blob.length >> 1] = (damaged[blob.length >> 1] ?? 0) ^ 0xff;
      for (const data of [blob.subarray(0, blob.length - 20), damaged]) {
        registry.publish('cut/app', 'v1', withLayer(tar, data, compression));
        await refusePull(stack, `${registry.host}/cut/app:v1`, broken);
      }
    }
  });

  it('a blob that is not what its digest says, and a layer that is not what its diffID says, are DATA_LOSS and leave nothing', async () => {
    const tar = archive([{ name: 'a', data: 'right' }]);
    const wrong = digestOf(Buffer.from('something else'));
    await refusePull(stack, serve({ layers: [tar], diffIds: [wrong] }), {
      code: 'DATA_LOSS',
      message: /diffID/,
    });
    const image = composeImage({ layers: [tar] });
    registry.publish('hostile/app', 'v1', image);
    const layer = image.layers[0]?.digest ?? '';
    const other = composeImage({ layers: [archive([{ name: 'b', data: 'wrong' }])] }).layers[0];
    registry.intercept = (request, response) => {
      if (request.url?.includes(layer) !== true) return false;
      response.end(other?.data);
      return true;
    };
    await refusePull(stack, `${registry.host}/hostile/app:v1`, {
      code: 'DATA_LOSS',
      message: /digest|truncated|longer/,
    });
  });

  const manifests: readonly (readonly [string, Refusal, Composition['amendManifest']])[] = [
    ['that is an array', { code: 'DATA_LOSS', message: /JSON object/ }, () => []],
    [
      'of schema 1',
      { code: 'UNIMPLEMENTED', message: /schema 1/ },
      (m) => ({ ...m, schemaVersion: 1 }),
    ],
    [
      'with a layer of an unknown type',
      { code: 'UNIMPLEMENTED', message: /application\/x-wasm/ },
      (m) => ({
        ...m,
        layers: [{ mediaType: 'application/x-wasm', digest: digestOf(Buffer.of()), size: 1 }],
      }),
    ],
    [
      'of an artifact',
      { code: 'UNIMPLEMENTED', message: /application\/vnd\.helm/ },
      (m) => ({ ...m, config: { ...(m['config'] as object), mediaType: 'application/vnd.helm' } }),
    ],
    [
      'with a digest that climbs out',
      { code: 'DATA_LOSS', message: /digest/ },
      (m) => ({
        ...m,
        config: { ...(m['config'] as object), digest: 'sha256:../../../etc/passwd' },
      }),
    ],
    [
      'with a negative size',
      { code: 'DATA_LOSS', message: /size/ },
      (m) => ({ ...m, config: { ...(m['config'] as object), size: -1 } }),
    ],
    [
      'with fewer layers than its configuration',
      { code: 'DATA_LOSS', message: /diff_ids/ },
      (m) => ({ ...m, layers: [] }),
    ],
    [
      'with more layers than can be mounted',
      { code: 'RESOURCE_EXHAUSTED', message: /over 127/ },
      (m) => ({ ...m, layers: Array.from({ length: 1000 }, () => (m['layers'] as object[])[0]) }),
    ],
    [
      'whose configuration claims a gigabyte',
      { code: 'RESOURCE_EXHAUSTED', message: /configuration/ },
      (m) => ({ ...m, config: { ...(m['config'] as object), size: 2 ** 30 } }),
    ],
  ];
  for (const [what, refusal, amendManifest] of manifests) {
    it(`a manifest ${what} is ${refusal.code} and leaves nothing`, async () => {
      const layers = [archive([{ name: 'a', data: what }])];
      const amend = amendManifest === undefined ? {} : { amendManifest };
      await refusePull(stack, serve({ layers, ...amend }), refusal);
    });
  }

  it('a manifest that is no JSON, is endless, or is not what its digest says is refused and leaves nothing', async () => {
    const name = serve({ layers: [archive([{ name: 'a' }])] });
    const bodies: readonly (readonly [Buffer, Refusal])[] = [
      [Buffer.from('<html>login first</html>'), { code: 'DATA_LOSS', message: /JSON/ }],
      [Buffer.alloc(6 * 1024 * 1024, ' '), { code: 'RESOURCE_EXHAUSTED', message: /bytes/ }],
    ];
    for (const [body, refusal] of bodies) {
      registry.intercept = (request, response) => {
        if (request.url?.includes('/manifests/') !== true) return false;
        response.end(body);
        return true;
      };
      await refusePull(stack, name, refusal);
    }
    const wrong = digestOf(Buffer.from('another manifest'));
    registry.intercept = (request, response) => {
      if (request.url?.includes('/manifests/') !== true) return false;
      response.writeHead(200, { 'docker-content-digest': wrong }).end('{}');
      return true;
    };
    const refusal = { code: 'DATA_LOSS', message: /digest/ } as const;
    await refusePull(stack, `${registry.host}/hostile/app@${wrong}`, refusal);
    await refusePull(stack, name, refusal);
  });

  for (const reference of MALFORMED_REFERENCES) {
    const shown = reference.length > 40 ? `${reference.slice(0, 40)}…` : reference;
    it(`PullImage of the malformed reference ${JSON.stringify(shown)} is INVALID_ARGUMENT and leaves nothing`, async () => {
      await refusePull(stack, reference, { code: 'INVALID_ARGUMENT', message: /./ });
    });
  }

  it('PullImage, ImageStatus and RemoveImage without an image are INVALID_ARGUMENT', async () => {
    const refusal = { code: 'INVALID_ARGUMENT', message: /image/ } as const;
    await failureOf(stack.cri.call('pullImage', PullImageRequest.fromPartial({})), refusal);
    await failureOf(stack.cri.call('imageStatus', ImageStatusRequest.fromPartial({})), refusal);
    await failureOf(stack.cri.call('removeImage', RemoveImageRequest.fromPartial({})), refusal);
  });
});

/** One layer whose blob is `data`, properly described, though not what the tar compresses to. */
function withLayer(tar: Buffer, data: Buffer, compression: 'gzip' | 'zstd') {
  const digest = digestOf(data);
  const mediaType = `application/vnd.oci.image.layer.v1.tar+${compression}`;
  const image = composeImage({
    layers: [tar],
    compression,
    amendManifest: (manifest) => ({
      ...manifest,
      layers: [{ mediaType, digest, size: data.length }],
    }),
  });
  return { ...image, layers: [{ mediaType, digest, data }] };
}

/** Cut short, or with some bytes changed, decided by the bytes of `random`. */
function mutate(whole: Buffer, random: Buffer): Buffer {
  const number = (at: number) => random.readUInt32LE(at);
  if (number(0) % 3 === 0) return whole.subarray(0, number(4) % whole.length);
  const changed = Buffer.from(whole);
  for (let index = 0; index < 1 + (number(8) % 4); index += 1) {
    // Mostly in headers, which come at whole blocks.
    const block = (number(12 + index) % (whole.length / BLOCK_BYTES)) * BLOCK_BYTES;
    const at = Math.floor(block) + (number(16 + index) % BLOCK_BYTES);
    changed[at] = random[20 + index] ?? 0;
    if (number(24) % 2 === 0) fixChecksum(changed, Math.floor(block));
  }
  return changed;
}

/** Makes a changed header count as a header. */
function fixChecksum(layer: Buffer, at: number): void {
  const header = layer.subarray(at, at + BLOCK_BYTES);
  if (header.toString('latin1', 257, 262) !== 'ustar') return;
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
}
