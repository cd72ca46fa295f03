// How a registry lets us in, and how a pull survives a registry that breaks, stalls or lies; nothing of
// a pull that failed stays, and no secret that was used is found anywhere.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { digestOf, pushImage } from '@cribus/cli/tour/image.ts';
import { startRegistry } from '@cribus/cli/tour/registry.ts';
import { after, before, beforeEach, describe, it } from 'mocha';
import { archive } from './harness/archive.ts';
import { composeImage } from './harness/compose-image.ts';
import {
  answer,
  type FaultyRegistry,
  type Intercept,
  startFaultyRegistry,
} from './harness/faulty-registry.ts';
import {
  failureOf,
  imagesDirectory,
  listImages,
  pullImage,
  refusePull,
  removeAllImages,
  removeImage,
  storedImages,
} from './harness/image-calls.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { eventually, runCommand, type Stack, startStack } from './harness/stack.ts';

const SECRETS = ['pass-sesame', 'identity-sesame', 'registry-sesame', 'issued-sesame'];
const image = composeImage({
  layers: [archive([{ name: 'a', data: 'a' }]), archive([{ name: 'b', data: 'b' }])],
});
/** Doesn't compress, so that a transfer of it can break in the middle. */
const noise = randomBytes(4_000_000);
const big = composeImage({ layers: [archive([{ name: 'noise', data: noise }])] });
const bigLayer = big.layers[0] ?? image.config;
const unavailable = { code: 'UNKNOWN', message: /^RegistryUnavailable: / } as const;
const STALL_S = 2;

describe('access to a registry', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let directory: string;
  let first: FaultyRegistry;
  before(async () => {
    host = snapshotHost();
    directory = mkdtempSync(join(tmpdir(), 'cribus-access-'));
    first = await startFaultyRegistry();
    stack = await startStack({ config: `[images]\nprogress_timeout_s = ${STALL_S}\n` });
  });
  beforeEach(async () => {
    await removeAllImages(stack.cri);
    first.reset();
  });
  after(async () => {
    await stack.destroy();
    await first.stop();
    rmSync(directory, { recursive: true, force: true });
    assertNothingLeaked(host);
  });

  const publish = (registry: FaultyRegistry) => registry.publish('team/app', 'v1', image);
  const NAME = () => `${first.host}/team/big:v1`;
  /** Answers requests for the big layer. */
  const layerFault =
    (fault: (from: number, response: Parameters<Intercept>[1]) => boolean): Intercept =>
    ({ url = '', headers }, response) =>
      url.includes(bigLayer.digest) &&
      fault(Number(/=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0), response);

  it('basic authentication of a real registry takes user and password in each form, and is UNAUTHENTICATED otherwise', async () => {
    const hash = execFileSync('perl', ['-e', 'print crypt("pass-sesame", q($2y$05$) . "a" x 22)']);
    const htpasswd = join(directory, 'htpasswd');
    writeFileSync(htpasswd, `kim:${hash.toString()}\n`);
    const real = await startRegistry({ htpasswd });
    try {
      const pair = Buffer.from('kim:pass-sesame').toString('base64');
      await pushImage(image, ['v1'], {
        registry: real.url,
        repository: 'team/app',
        authorization: `Basic ${pair}`,
        signal: AbortSignal.timeout(30_000),
      });
      const name = `${real.host}/team/app:v1`;
      const refusal = { code: 'UNAUTHENTICATED', message: /team\/app/ } as const;
      await refusePull(stack, name, refusal);
      await refusePull(stack, name, refusal, { username: 'kim', password: 'wrong' });
      await refusePull(stack, name, refusal, {
        username: 'kim',
        password: 'pass-sesame',
        serverAddress: 'https://elsewhere.test',
      });
      for (const auth of [
        { username: 'kim', password: 'pass-sesame' },
        { username: 'kim', password: 'pass-sesame', serverAddress: real.url },
        { auth: pair },
      ]) {
        assert.equal(await pullImage(stack.cri, name, { auth }), image.id);
        await removeAllImages(stack.cri);
      }
      const notBase64 = { code: 'INVALID_ARGUMENT', message: /auth/ } as const;
      await refusePull(stack, name, notBase64, { auth: 'bm8gY29sb24=' });
    } finally {
      await real.stop();
    }
  });

  it('an image by digest that is here is as UNAUTHENTICATED as by its tag, and its manifest and layers are not sent again', async () => {
    publish(first);
    const wanted = `Basic ${Buffer.from('kim:pass-sesame').toString('base64')}`;
    first.intercept = ({ headers }, response) =>
      headers.authorization !== wanted &&
      answer(response, 401, '{}', { 'www-authenticate': 'Basic realm="x"' });
    const auth = { username: 'kim', password: 'pass-sesame' };
    const byTag = `${first.host}/team/app:v1`;
    const byDigest = `${first.host}/team/app@${image.manifest.digest}`;
    assert.equal(await pullImage(stack.cri, byTag, { auth }), image.id);
    const refusal = { code: 'UNAUTHENTICATED', message: /team\/app/ } as const;
    for (const name of [byTag, byDigest]) {
      await refusePull(stack, name, refusal);
      await refusePull(stack, name, refusal, { username: 'kim', password: 'wrong' });
    }
    first.requests.length = 0;
    assert.equal(await pullImage(stack.cri, byDigest, { auth }), image.id);
    assert.ok(first.requests.length > 0, 'the registry is asked');
    assert.ok(first.requests.every(({ method }) => method === 'HEAD'));
    const [listed] = await listImages(stack.cri);
    assert.deepEqual([listed?.repoTags, listed?.repoDigests], [[byTag], [byDigest]]);
    // Also where it was removed, and its layers are here for another image.
    const other = composeImage({
      layers: [archive([{ name: 'a', data: 'a' }]), archive([{ name: 'b', data: 'b' }])],
      config: { Labels: { other: 'yes' } },
    });
    first.publish('team/app', 'v2', other);
    await pullImage(stack.cri, `${first.host}/team/app:v2`, { auth });
    await removeImage(stack.cri, image.id);
    first.requests.length = 0;
    assert.equal(await pullImage(stack.cri, byDigest, { auth }), image.id);
    for (const { digest } of image.layers) assert.equal(first.countOf(digest), 0);
  });

  it('a repository or registry that has not an image is refused also where the image is here, and is none of its names', async () => {
    publish(first);
    const name = `${first.host}/team/app:v1`;
    assert.equal(await pullImage(stack.cri, name), image.id);
    const before = await listImages(stack.cri);
    const { digest } = image.manifest;
    await refusePull(stack, `${first.host}/nobody/app@${digest}`, {
      code: 'NOT_FOUND',
      message: /nobody\/app/,
    });
    await refusePull(stack, `127.0.0.1:1/team/app@${digest}`, unavailable);
    // One that only says so has to give the manifest.
    first.intercept = ({ url = '' }, response) =>
      url.includes('/false/') && answer(response, 200, '', { 'docker-content-digest': digest });
    await refusePull(stack, `${first.host}/false/app@${digest}`, {
      code: 'DATA_LOSS',
      message: /digest/,
    });
    assert.deepEqual(await listImages(stack.cri), before);
  });

  it('bearer authentication fetches a token without credentials, with a password or an identity token, and shows a registry token as it is', async () => {
    publish(first);
    let mode: 'anonymous' | 'password' | 'identity' | 'registry' = 'anonymous';
    const tokens = await startFaultyRegistry();
    tokens.intercept = (request, response) => {
      const { authorization } = request.headers;
      const wanted = `Basic ${Buffer.from('kim:pass-sesame').toString('base64')}`;
      const allowed =
        mode === 'identity'
          ? request.method === 'POST'
          : authorization === (mode === 'password' ? wanted : undefined);
      if (!allowed) return answer(response, 401, '{}');
      const body = JSON.stringify({
        [mode === 'identity' ? 'access_token' : 'token']: 'issued-sesame',
      });
      return answer(response, 200, body);
    };
    first.intercept = ({ headers }, response) => {
      const token = mode === 'registry' ? 'registry-sesame' : 'issued-sesame';
      if (headers.authorization === `Bearer ${token}`) return false;
      const challenge = `Bearer realm="${tokens.url}/token",service="test",scope="repository:team/app:pull"`;
      return answer(response, 401, '{}', { 'www-authenticate': challenge });
    };
    try {
      const name = `${first.host}/team/app:v1`;
      const refusal = { code: 'UNAUTHENTICATED', message: /team\/app/ } as const;
      const auths = {
        anonymous: {},
        password: { username: 'kim', password: 'pass-sesame' },
        identity: { identityToken: 'identity-sesame' },
        registry: { registryToken: 'registry-sesame' },
      };
      for (const [each, auth] of Object.entries(auths)) {
        mode = each as keyof typeof auths;
        tokens.requests.length = 0;
        assert.equal(await pullImage(stack.cri, name, { auth }), image.id, each);
        await removeAllImages(stack.cri);
        assert.equal(tokens.requests.length, mode === 'registry' ? 0 : 1, `${each}: one token`);
      }
      mode = 'password';
      await refusePull(stack, name, refusal);
      await refusePull(stack, name, refusal, { username: 'kim', password: 'wrong' });
      const query = new URL(tokens.requests.at(-1)?.url ?? '', tokens.url).searchParams;
      assert.equal(query.get('scope'), 'repository:team/app:pull');
      assert.equal(query.get('service'), 'test');
    } finally {
      await tokens.stop();
    }
  });

  it('a redirect to another server is followed without the credentials, and an endless one is given up', async () => {
    const store = await startFaultyRegistry();
    try {
      publish(first);
      publish(store);
      first.intercept = ({ url = '', headers }, response) => {
        if (headers.authorization === undefined) {
          return answer(response, 401, '', { 'www-authenticate': 'Basic realm="x"' });
        }
        return url.includes('/blobs/') && answer(response, 307, '', { location: store.url + url });
      };
      const auth = { username: 'kim', password: 'pass-sesame' };
      const name = `${first.host}/team/app:v1`;
      assert.equal(await pullImage(stack.cri, name, { auth }), image.id);
      assert.equal(store.countOf('/blobs/'), 3);
      assert.ok(store.requests.every(({ headers }) => headers.authorization === undefined));
      await removeAllImages(stack.cri);
      first.intercept = ({ url = '' }, response) => answer(response, 302, '', { location: url });
      await refusePull(stack, name, unavailable);
      assert.ok(first.requests.length < 100);
    } finally {
      await store.stop();
    }
  });

  it('a transfer that breaks again and again goes on where it stopped', async () => {
    first.publish('team/big', 'v1', big);
    const starts: number[] = [];
    first.intercept = layerFault((from, response) => {
      starts.push(from);
      const body = bigLayer.data.subarray(from);
      response.writeHead(from > 0 ? 206 : 200, { 'content-length': body.length });
      if (starts.length > 4) response.end(body);
      else response.write(body.subarray(0, 700_000), () => response.destroy());
      return true;
    });
    assert.equal(await pullImage(stack.cri, NAME()), big.id);
    assert.equal(starts.length, 5);
    assert.ok(
      starts.slice(1).every((from, index) => from > (starts[index] ?? 0)),
      starts.join(),
    );
    assert.equal((await storedImages(stack)).layers.length, 1);
  });

  it('a server that knows no ranges sends everything again, and the layer is right', async () => {
    first.publish('team/big', 'v1', big);
    let breaks = 2;
    first.intercept = layerFault((_from, response) => {
      response.writeHead(200, { 'content-length': bigLayer.data.length });
      breaks -= 1;
      if (breaks < 0) response.end(bigLayer.data);
      else response.write(bigLayer.data.subarray(0, 900_000), () => response.destroy());
      return true;
    });
    assert.equal(await pullImage(stack.cri, NAME()), big.id);
    const { layers } = await storedImages(stack);
    const file = join(imagesDirectory(stack), 'layers', layers[0] ?? '', 'noise');
    assert.equal(digestOf(readFileSync(file)), digestOf(noise));
  });

  it('a transfer that stalls is taken up again', async () => {
    first.publish('team/big', 'v1', big);
    let stalls = 1;
    first.intercept = layerFault((_from, response) => {
      stalls -= 1;
      if (stalls < 0) return false;
      response.writeHead(200, { 'content-length': bigLayer.data.length });
      response.write(bigLayer.data.subarray(0, 1_000_000));
      return true;
    });
    const startedMs = performance.now();
    assert.equal(await pullImage(stack.cri, NAME()), big.id);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs > STALL_S * 900 && tookMs < STALL_S * 5000, `${tookMs} ms`);
  });

  it('a registry that never answers, or stops within a blob each time, is RegistryUnavailable after its budget', async () => {
    first.publish('team/big', 'v1', big);
    first.intercept = () => true;
    await refusePull(stack, NAME(), unavailable);
    first.intercept = layerFault((_from, response) => {
      response.writeHead(200, { 'content-length': bigLayer.data.length });
      response.flushHeaders();
      return true;
    });
    await refusePull(stack, NAME(), unavailable);
  });

  for (const status of [429, 500, 503]) {
    it(`a registry that answers ${status} is asked again, after the pause it wants`, async () => {
      first.publish('team/big', 'v1', big);
      let refusals = 2;
      let askedMs = 0;
      let pauseMs = 0;
      first.intercept = (_request, response) => {
        if (askedMs > 0 && pauseMs === 0) pauseMs = performance.now() - askedMs;
        refusals -= 1;
        if (refusals < 0) return false;
        if (askedMs === 0) askedMs = performance.now();
        return answer(response, status, '', { 'retry-after': '1' });
      };
      assert.equal(await pullImage(stack.cri, NAME()), big.id);
      assert.ok(pauseMs >= 990, `${pauseMs} ms`);
    });
  }

  it('a registry that stays broken is UNKNOWN with RegistryUnavailable in front, a refusal PERMISSION_DENIED', async () => {
    first.publish('team/big', 'v1', big);
    first.intercept = (_request, response) => answer(response, 502);
    await refusePull(stack, NAME(), { code: 'UNKNOWN', message: /^RegistryUnavailable: .*502/ });
    await refusePull(stack, '127.0.0.1:1/team/app:v1', unavailable);
    first.intercept = (_request, response) => answer(response, 403);
    await refusePull(stack, NAME(), { code: 'PERMISSION_DENIED', message: /403/ });
    first.intercept = (_request, response) => {
      response.socket?.end('SSH-2.0-OpenSSH_9.2\r\n');
      return true;
    };
    await refusePull(stack, NAME(), unavailable);
    first.intercept = () => false;
    assert.equal(await pullImage(stack.cri, NAME()), big.id, 'a failure leaves the name free');
  });

  it('what was verified before the registry went away is not fetched again by the next try', async () => {
    publish(first);
    const [lower, upper] = image.layers;
    first.intercept = ({ url = '' }, response) =>
      url.includes(upper?.digest ?? '') && answer(response, 502);
    const name = `${first.host}/team/app:v1`;
    await refusePull(stack, name, unavailable);
    first.intercept = () => false;
    first.requests.length = 0;
    assert.equal(await pullImage(stack.cri, name), image.id);
    assert.equal(first.countOf(upper?.digest ?? ''), 1);
    assert.equal(first.countOf(lower?.digest ?? ''), 0);
  });

  it('a blob that is shorter or longer than it should be is DATA_LOSS', async () => {
    first.publish('team/big', 'v1', big);
    const bodies = [
      bigLayer.data.subarray(0, 1_000_000),
      Buffer.concat([bigLayer.data, Buffer.from('more')]),
    ];
    for (const body of bodies) {
      first.intercept = layerFault((from, response) =>
        from >= body.length ? answer(response, 416) : response.end(body.subarray(from)) !== null,
      );
      await refusePull(stack, NAME(), { code: 'DATA_LOSS', message: /truncated|longer|digest/ });
    }
  });

  it('pulls of one image at the same time share one transfer, and images share the layers they have in common', async () => {
    const other = composeImage({
      layers: [archive([{ name: 'noise', data: noise }])],
      config: { Labels: { other: 'yes' } },
    });
    first.publish('team/big', 'v1', big);
    first.publish('team/big', 'v2', other);
    const ids = await Promise.all(
      ['v1', 'v1', 'v1', 'v2'].map((tag) => pullImage(stack.cri, `${first.host}/team/big:${tag}`)),
    );
    assert.deepEqual(ids, [big.id, big.id, big.id, other.id]);
    assert.equal(first.countOf('/manifests/v1'), 1);
    assert.equal(first.countOf(bigLayer.digest), 1);
    assert.equal((await storedImages(stack)).layers.length, 1);
    first.requests.length = 0;
    assert.equal(await pullImage(stack.cri, NAME()), big.id);
    const again = first.requests.map(({ method, url }) => `${method} ${url}`);
    assert.deepEqual(
      again,
      ['HEAD /v2/team/big/manifests/v1'],
      'what is here is not fetched again',
    );
  });

  it('a pull whose caller went away goes on, and the next call has its result', async () => {
    first.publish('team/big', 'v1', big);
    let release = () => {};
    first.intercept = layerFault((_from, response) => {
      release = () => response.end(bigLayer.data);
      response.writeHead(200, { 'content-length': bigLayer.data.length }).flushHeaders();
      return true;
    });
    const gone = pullImage(stack.cri, NAME(), { timeoutMs: 500 });
    await failureOf(gone, { code: 'DEADLINE_EXCEEDED', message: /./ });
    assert.equal(first.countOf(bigLayer.digest), 1);
    const next = pullImage(stack.cri, NAME());
    release();
    assert.equal(await next, big.id);
    assert.equal(first.countOf(bigLayer.digest), 1, 'it was not fetched twice');
    await eventually('it is listed', async () => (await listImages(stack.cri)).length === 1);
  });

  it('an image configuration of megabytes is pulled and shown', async () => {
    const label = 'x'.repeat(3_000_000);
    const large = composeImage({
      layers: [archive([{ name: 'a', data: 'a' }])],
      config: { Labels: { label } },
    });
    first.publish('team/large', 'v1', large);
    assert.equal(await pullImage(stack.cri, `${first.host}/team/large:v1`), large.id);
    assert.deepEqual(
      (await listImages(stack.cri)).map(({ id }) => id),
      [large.id],
    );
  });

  it('no secret that was used is in a log, a record, a command line or an environment', async () => {
    const secrets = [
      ...SECRETS,
      ...SECRETS.map((secret) => Buffer.from(`kim:${secret}`).toString('base64')),
    ];
    // Layers that are being deleted meanwhile are no matter.
    const { stdout: found } = await runCommand('find', [
      ...[join(stack.root, 'log'), join(stack.root, 'state')],
      ...['-type', 'f', '-not', '-path', '*/trash/*'],
    ]);
    const files = found.split('\n').filter((file) => file !== '' && existsSync(file));
    assert.ok(
      files.some((file) => basename(file).includes('image-service')),
      found,
    );
    let bytes = 0;
    for (const file of files) {
      const text = readFileSync(file, 'latin1');
      bytes += text.length;
      for (const secret of secrets) assert.ok(!text.includes(secret), `${secret} in ${file}`);
    }
    assert.ok(bytes > 1000);
    const { parts } = await stack.status();
    const { stdout } = await runCommand('sh', [
      '-c',
      `cat ${parts.map(({ pid }) => `/proc/${pid}/cmdline /proc/${pid}/environ`).join(' ')}`,
    ]);
    for (const secret of secrets) assert.ok(!stdout.includes(secret));
  });
});
