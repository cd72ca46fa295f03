import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { isFailure } from '@cribus/contracts/failure.ts';
import { AuthConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { hostPlatform } from '@cribus/contracts/image-platform.ts';
import { getXattr } from '@cribus/host/jail.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { type ImageStack, openImageStack } from './testing/image-stack.ts';
import {
  publishImage,
  type RegistryServer,
  startRegistryServer,
} from './testing/registry-server.ts';
import { buildTar } from './testing/tar-builder.ts';

const hello = buildTar([
  { name: 'etc/', type: '5', mode: 0o755 },
  { name: 'etc/motd', data: 'hello\n', mode: 0o4755, uid: 7, gid: 8, mtime: 1_500_000_000 },
]);
/** Doesn't compress, so that a transfer of it can break. */
const big = buildTar([{ name: 'noise', data: randomBytes(3 * 1024 * 1024) }]);

describe('pulling an image', () => {
  let registry: RegistryServer;
  let stack: ImageStack;
  beforeEach(async () => {
    registry = await startRegistryServer();
    stack = await openImageStack('[images]\nprogress_timeout_s = 2\npinned = ["127.0.0.1*"]\n');
  });
  afterEach(async () => {
    await registry.close();
    await stack.close();
  });
  const signal = new AbortController().signal;
  const pull = (image: string, auth?: Partial<AuthConfig>) =>
    stack.pull({
      image,
      auth: auth === undefined ? undefined : AuthConfig.fromPartial(auth),
      platform: hostPlatform(),
      signal,
    });
  const layerNames = () => readdirSync(stack.store.paths.layers);
  const nothingLeft = () => {
    assert.deepEqual(layerNames(), []);
    assert.deepEqual(readdirSync(stack.store.paths.ingest), []);
    assert.deepEqual(stack.store.images.all(), []);
  };

  it('lists it by its configuration digest, tag and digest, and unpacks it exactly', async () => {
    const image = publishImage(registry, { path: 'a/b', tag: 'v1', layers: [hello, big] });
    const { imageId, changed } = await pull(`${registry.host}/a/b:v1`);
    assert.equal(imageId, image.id);
    assert.equal(changed.length, 1);
    const record = stack.store.images.get(imageId);
    assert.deepEqual(record?.repoTags, [`${registry.host}/a/b:v1`]);
    assert.deepEqual(record?.repoDigests, [`${registry.host}/a/b@${image.digest}`]);
    assert.equal(record?.sizeBytes, BigInt(image.sizeBytes));
    assert.equal(record?.pinned, true);
    const root = join(stack.store.paths.layers, record?.layers[0]?.name ?? 'none');
    assert.equal(readFileSync(join(root, 'etc/motd'), 'utf8'), 'hello\n');
    const motd = lstatSync(join(root, 'etc/motd'), { bigint: true });
    assert.deepEqual(
      [motd.mode & 0o7777n, motd.uid, motd.gid, motd.mtimeNs],
      [0o4755n, 7n, 8n, 1_500_000_000_000_000_000n],
    );
    assert.deepEqual(readdirSync(stack.store.paths.ingest), []);
    const again = await pull(`${registry.host}/a/b@${image.digest}`);
    assert.equal(again.imageId, imageId);
  });

  /** What was asked of the registry since the last call, as `HEAD manifests/v1`. */
  const asked = () =>
    registry.requests
      .splice(0)
      .map(({ method, url }) => `${method} ${url.replace(/^.*\/(\w+\/[^/]+)$/, '$1')}`);

  it('asks the repository for an image by digest that is here, as the caller, and sends nothing again', async () => {
    const image = publishImage(registry, { path: 'private/a', tag: 'v1', layers: [hello] });
    const auth = { username: 'kim', password: 'sesame' };
    const wanted = `Basic ${Buffer.from('kim:sesame').toString('base64')}`;
    registry.intercept = ({ headers }, response) => {
      if (headers.authorization === wanted) return false;
      response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
      return true;
    };
    await pull(`${registry.host}/private/a:v1`, auth);
    const byDigest = `${registry.host}/private/a@${image.digest}`;
    for (const name of [`${registry.host}/private/a:v1`, byDigest]) {
      await assert.rejects(pull(name), (error) => isFailure(error, 'unauthenticated'));
    }
    asked();
    assert.equal((await pull(byDigest, auth)).imageId, image.id);
    const head = `HEAD manifests/${image.digest}`;
    assert.deepEqual(asked(), [head, head], 'once without credentials');
  });

  it('believes no other repository that it has an image, but has it give the manifest', async () => {
    const image = publishImage(registry, { path: 'mine', tag: 'v1', layers: [hello] });
    await pull(`${registry.host}/mine:v1`);
    const names = () => stack.store.images.get(image.id)?.repoDigests;
    const before = names();
    const other = `${registry.host}/other@${image.digest}`;
    await assert.rejects(pull(other), (error) => isFailure(error, 'not_found'));
    registry.intercept = (_request, response) => {
      response.writeHead(200, { 'docker-content-digest': image.digest }).end();
      return true;
    };
    await assert.rejects(pull(other), (error) => isFailure(error, 'data_loss'));
    assert.deepEqual(names(), before);
    registry.intercept = () => false;
    publishImage(registry, { path: 'other', tag: 'v1', layers: [hello] });
    asked();
    assert.equal((await pull(other)).imageId, image.id);
    assert.deepEqual(asked(), [`GET manifests/${image.digest}`]);
    assert.deepEqual(names(), [...(before ?? []), other]);
  });

  it('asks which manifest a tag means once it has one of it, and has a new one sent', async () => {
    const image = publishImage(registry, { path: 't', tag: 'v', layers: [hello] });
    const name = `${registry.host}/t:v`;
    await pull(name);
    const manifests = () => asked().filter((line) => line.includes('manifests'));
    assert.deepEqual(manifests(), ['GET manifests/v'], 'the first is one question');
    assert.equal((await pull(name)).imageId, image.id);
    assert.deepEqual(manifests(), ['HEAD manifests/v']);
    const next = publishImage(registry, { path: 't', tag: 'v', layers: [big] });
    assert.equal((await pull(name)).imageId, next.id);
    assert.deepEqual(manifests(), ['HEAD manifests/v', 'GET manifests/v']);
    publishImage(registry, { path: 't', tag: 'v', layers: [hello] });
    assert.equal((await pull(name)).imageId, image.id, 'the one before is still here');
    assert.deepEqual(manifests(), ['HEAD manifests/v']);
    await stack.store.removeImage(image.id, []);
    await pull(name);
    assert.deepEqual(manifests(), ['GET manifests/v']);
  });

  for (const by of ['digest', 'tag'] as const)
    it(`asks for the manifest itself where the answer for the head of a ${by} is of no use`, async () => {
      const image = publishImage(registry, { path: 'h', tag: 'v', layers: [hello] });
      const name = `${registry.host}/h${by === 'tag' ? ':v' : `@${image.digest}`}`;
      await pull(name);
      const other = `sha256:${'0'.repeat(64)}`;
      const answers: ((response: ServerResponse) => unknown)[] = [
        (response) => response.writeHead(404).end(),
        (response) => response.writeHead(405).end(),
        (response) => response.writeHead(401).end(),
        (response) => response.writeHead(200).end(),
        (response) => response.writeHead(200, { 'docker-content-digest': 'sha1:x' }).end(),
        (response) => response.writeHead(200, { 'docker-content-digest': other }).end(),
        (response) => response.writeHead(503).end(),
        (response) => response.destroy(),
      ];
      for (const answer of answers) {
        registry.intercept = ({ method }, response) => {
          if (method === 'HEAD') answer(response);
          return method === 'HEAD';
        };
        asked();
        assert.equal((await pull(name)).imageId, image.id);
        const which = by === 'tag' ? 'v' : image.digest;
        const both = [`HEAD manifests/${which}`, `GET manifests/${which}`];
        assert.deepEqual(asked(), both, String(answer));
      }
    });

  it('gives an image pulled by digest no tag, and moves a tag from the old image', async () => {
    const first = publishImage(registry, { path: 'app', tag: 'latest', layers: [hello] });
    await pull(`${registry.host}/app@${first.digest}`);
    assert.deepEqual(stack.store.images.get(first.id)?.repoTags, []);
    await pull(`${registry.host}/app`);
    const second = publishImage(registry, { path: 'app', tag: 'latest', layers: [big] });
    const { changed } = await pull(`${registry.host}/app`);
    assert.deepEqual(stack.store.images.get(first.id)?.repoTags, []);
    assert.equal(stack.store.images.get(first.id)?.repoDigests.length, 1);
    assert.deepEqual(stack.store.images.get(second.id)?.repoTags, [`${registry.host}/app:latest`]);
    assert.deepEqual(changed.map((report) => report.id).sort(), [first.id, second.id].sort());
  });

  it('reads zstd and plain layers', async () => {
    for (const [tag, compress] of [
      ['zstd', zstdCompressSync],
      ['tar', (tar: Buffer) => tar],
    ] as const) {
      publishImage(registry, {
        path: 'x',
        tag,
        layers: [buildTar([{ name: tag, data: tag }])],
        compress,
      });
      await pull(`${registry.host}/x:${tag}`);
    }
    assert.equal(layerNames().length, 2);
  });

  it('resumes a broken transfer where it stopped', async () => {
    const image = publishImage(registry, { path: 'r', tag: 'v', layers: [big] });
    let breaks = 2;
    registry.intercept = (request, response) => {
      const blob = registry.content.get(`r/blobs/${image.layerDigests[0]}`)?.body;
      if (
        blob === undefined ||
        !request.url?.includes(image.layerDigests[0] ?? '?') ||
        breaks === 0
      ) {
        return false;
      }
      breaks -= 1;
      const from = Number(/=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      response.writeHead(from > 0 ? 206 : 200, { 'content-length': blob.length - from });
      response.write(blob.subarray(from, from + 1_000_000), () => response.destroy());
      return true;
    };
    const { imageId } = await pull(`${registry.host}/r:v`);
    assert.equal(imageId, image.id);
    const ranges = registry.requests.map(({ headers }) => headers.range).filter(Boolean);
    assert.equal(ranges.length, 2);
  });

  it('shares the pull of one reference, and one layer between two pulls', async () => {
    publishImage(registry, { path: 's', tag: 'one', layers: [big], labels: { n: '1' } });
    publishImage(registry, { path: 's', tag: 'two', layers: [big], labels: { n: '2' } });
    await Promise.all(['one', 'one', 'two'].map((tag) => pull(`${registry.host}/s:${tag}`)));
    const count = (part: string) =>
      registry.requests.filter(({ url }) => url.includes(part)).length;
    assert.equal(count('/manifests/one'), 1);
    assert.equal(count('/blobs/'), 3, 'two configurations and one layer');
    assert.equal(stack.store.images.all().length, 2);
  });

  it('fetches a token for its password, and writes neither anywhere', async () => {
    const image = publishImage(registry, { path: 'p', tag: 'v', layers: [hello] });
    const wanted = `Basic ${Buffer.from('me:sesame-secret').toString('base64')}`;
    registry.intercept = (request, response) => {
      if (request.url?.startsWith('/token')) {
        const fine = request.headers.authorization === wanted;
        response.writeHead(fine ? 200 : 401).end('{"token":"opaque-token"}');
        return true;
      }
      if (request.headers.authorization === 'Bearer opaque-token') return false;
      const realm = `Bearer realm="http://${registry.host}/token",service="r",scope="repository:p:pull"`;
      response.writeHead(401, { 'www-authenticate': realm }).end();
      return true;
    };
    await assert.rejects(
      pull(`${registry.host}/p:v`, { username: 'me', password: 'wrong-word' }),
      (error) => isFailure(error, 'unauthenticated'),
    );
    nothingLeft();
    const auth = Buffer.from('me:sesame-secret').toString('base64');
    assert.equal((await pull(`${registry.host}/p:v`, { auth })).imageId, image.id);
    assert.doesNotMatch(stack.logged.join('\n'), /sesame|wrong-word|opaque-token/);
    assert.ok(registry.requests.some(({ url }) => url.includes('scope=repository%3Ap%3Apull')));
  });

  it('follows a redirect without showing it the credentials', async () => {
    const image = publishImage(registry, { path: 'd', tag: 'v', layers: [hello] });
    const store = await startRegistryServer();
    try {
      store.content.set('blob', {
        body: registry.content.get(`d/blobs/${image.layerDigests[0]}`)?.body ?? Buffer.alloc(0),
        type: '',
      });
      registry.intercept = (request, response) => {
        if (request.headers.authorization === undefined) {
          response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
          return true;
        }
        if (!request.url?.includes(image.layerDigests[0] ?? '?')) return false;
        response.writeHead(307, { location: `http://${store.host}/v2/blob` }).end();
        return true;
      };
      await pull(`${registry.host}/d:v`, { username: 'u', password: 'p' });
      assert.equal(store.requests.length, 1);
      assert.equal(store.requests[0]?.headers.authorization, undefined);
    } finally {
      await store.close();
    }
  });

  it('takes the next mirror of hosts.toml when one fails', async () => {
    const image = publishImage(registry, { path: 'lib/m', tag: 'v', layers: [hello] });
    const directory = join(stack.certsDirectory, 'registry.example_5000_');
    await mkdir(directory, { recursive: true });
    await writeFile(
      join(directory, 'hosts.toml'),
      `server = "http://127.0.0.1:1"\n[host."http://127.0.0.1:2"]\n[host."http://${registry.host}"]\ncapabilities = ["pull", "resolve"]\n[host."http://${registry.host}".header]\nX-Mirror = "yes"\n`,
    );
    assert.equal((await pull('registry.example:5000/lib/m:v')).imageId, image.id);
    assert.equal(registry.requests[0]?.headers['x-mirror'], 'yes');
    assert.match(registry.requests[0]?.url ?? '', /ns=registry.example%3A5000/);
    registry.requests.length = 0;
    assert.equal((await pull('registry.example:5000/lib/m:v')).imageId, image.id);
    const [head, ...more] = registry.requests;
    assert.deepEqual([head?.method, head?.headers['x-mirror'], more], ['HEAD', 'yes', []]);
    assert.match(head?.url ?? '', /ns=registry.example%3A5000/);
  });

  /** Answers for a path that has `part` in it. */
  const answering =
    (part: string, answer: (range: string | undefined, response: ServerResponse) => void) =>
    (request: IncomingMessage, response: ServerResponse) => {
      const mine = request.url?.includes(part) ?? false;
      if (mine) answer(request.headers.range, response);
      return mine;
    };
  type Fault = readonly [string, RegExp, string, (blob: string) => RegistryServer['intercept']];
  const faults: Fault[] = [
    [
      'an unknown manifest',
      /not-there.*tried 127/,
      'not_found',
      () => answering('manifests', (_, response) => response.writeHead(404).end()),
    ],
    [
      'a refusal',
      /answers 403/,
      'denied',
      () => answering('', (_, response) => response.writeHead(403).end()),
    ],
    [
      'a wrong blob',
      /layer|broken/,
      'data_loss',
      (blob) =>
        answering(blob, (_, response) => {
          response.end(
            Buffer.alloc(registry.content.get(`not-there/blobs/${blob}`)?.body.length ?? 0),
          );
        }),
    ],
    [
      'a truncated blob',
      /truncated/,
      'data_loss',
      (blob) =>
        answering(blob, (range, response) => {
          const body = registry.content.get(`not-there/blobs/${blob}`)?.body.subarray(0, 60);
          if (range === undefined) response.writeHead(200).end(body);
          else response.writeHead(416).end();
        }),
    ],
    [
      'a silent registry',
      /^RegistryUnavailable: .*no answer for 2 s/,
      'kubelet_reason',
      () => answering('', () => {}),
    ],
    [
      'a manifest that stops in its middle',
      /^RegistryUnavailable: .*no byte for 2 s/,
      'kubelet_reason',
      () =>
        answering('/manifests/', (_range, response) => {
          response.writeHead(200, { 'content-length': 1000 }).write('{');
        }),
    ],
  ];
  for (const [what, message, kind, intercept] of faults) {
    it(`fails at ${what} as ${kind}, and leaves nothing`, async () => {
      const image = publishImage(registry, { path: 'not-there', tag: 'v', layers: [hello] });
      registry.intercept = intercept(image.layerDigests[0] ?? '?');
      await assert.rejects(pull(`${registry.host}/not-there:v`), (error) => {
        assert.ok(isFailure(error), String(error));
        assert.equal(error.kind, kind, error.message);
        assert.match(error.message, message);
        return true;
      });
      nothingLeft();
    });
  }

  it('says RegistryUnavailable first when nothing listens', async () => {
    await assert.rejects(
      pull('127.0.0.1:1/x:v'),
      /^Failure: RegistryUnavailable: pull 127.0.0.1:1\/x:v/,
    );
  });

  it('refuses a layer whose diffID is another', async () => {
    publishImage(registry, {
      path: 'w',
      tag: 'v',
      layers: [hello],
      diffIds: [`sha256:${'0'.repeat(64)}`],
    });
    await assert.rejects(pull(`${registry.host}/w:v`), /has the diffID/);
    nothingLeft();
  });

  it('chooses this platform from a list', async () => {
    const mine = publishImage(registry, { path: 'l', tag: 'mine', layers: [hello] });
    const other = publishImage(registry, {
      path: 'l',
      tag: 'other',
      layers: [big],
      architecture: 's390x',
    });
    const entry = (digest: string, architecture: string) => ({
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest,
      size: 1,
      platform: { os: 'linux', architecture },
    });
    const here = { x64: 'amd64', arm64: 'arm64' }[process.arch as string] ?? '';
    const type = 'application/vnd.oci.image.index.v1+json';
    const body = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: type,
        manifests: [entry(other.digest, 's390x'), entry(mine.digest, here)],
      }),
    );
    registry.content.set('l/manifests/all', { body, type });
    assert.equal((await pull(`${registry.host}/l:all`)).imageId, mine.id);
  });

  it('takes a directory’s mode and owner from the layer below when a layer leaves them out', async () => {
    const low = buildTar([{ name: 'tmp/', type: '5', mode: 0o1777, uid: 9, mtime: 5 }]);
    const other = buildTar([{ name: 'tmp/', type: '5', mode: 0o700, uid: 3, mtime: 6 }]);
    const top = buildTar([{ name: 'tmp/new/file', data: 'x' }]);
    const should = { low: [0o1777, 9, 5000], other: [0o700, 3, 6000] };
    let topName = '';
    for (const [tag, base] of Object.entries({ low, other })) {
      publishImage(registry, { path: 'i', tag, layers: [base, top] });
      const { imageId } = await pull(`${registry.host}/i:${tag}`);
      // The layer is shared; what it leaves out differs, and lies in a layer above it.
      const names = stack.store.images.get(imageId)?.layers.map(({ name }) => name) ?? [];
      assert.equal(names.length, 3);
      topName = names[1] ?? 'none';
      const tmp = lstatSync(join(stack.store.paths.layers, names[2] ?? 'none', 'tmp'));
      const is = [tmp.mode & 0o7777, tmp.uid, tmp.mtimeMs];
      assert.deepEqual(is, should[tag as keyof typeof should]);
    }
    assert.equal(layerNames().length, 5);
    const added = lstatSync(join(stack.store.paths.layers, topName, 'tmp/new'));
    assert.equal(added.mode & 0o7777, 0o755);
  });

  it('hides what a whiteout names, by the way of overlayfs', async () => {
    const layer = buildTar([
      { name: 'gone/.wh..wh..opq' },
      { name: 'gone/kept', data: 'k' },
      { name: '.wh.file' },
      { name: 'link', type: '2', linkName: '/etc/passwd' },
      { name: 'hard', type: '1', linkName: 'gone/kept' },
    ]);
    publishImage(registry, { path: 'o', tag: 'v', layers: [layer] });
    await pull(`${registry.host}/o:v`);
    const root = join(stack.store.paths.layers, layerNames()[0] ?? 'none');
    assert.equal(getXattr(join(root, 'gone'), 'trusted.overlay.opaque').toString(), 'y');
    const whiteout = lstatSync(join(root, 'file'));
    assert.ok(whiteout.isCharacterDevice() && whiteout.rdev === 0);
    assert.equal(lstatSync(join(root, 'hard')).nlink, 2);
    assert.ok(lstatSync(join(root, 'link')).isSymbolicLink());
  });
});
