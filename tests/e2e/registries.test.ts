// Where an image's registry is found: every key of hosts.toml, as shown by who was asked for what.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'mocha';
import { archive } from './harness/archive.ts';
import { type Certificates, makeCertificates } from './harness/certificates.ts';
import { composeImage } from './harness/compose-image.ts';
import { answer, type FaultyRegistry, startFaultyRegistry } from './harness/faulty-registry.ts';
import { imageStatus, pullImage, refusePull, removeAllImages } from './harness/image-calls.ts';
import { writeHosts } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { type Stack, startStack } from './harness/stack.ts';

const unavailable = { code: 'UNKNOWN', message: /^RegistryUnavailable: / } as const;
const image = composeImage({
  layers: [archive([{ name: 'a', data: 'a' }]), archive([{ name: 'b', data: 'b' }])],
});

describe('registries by hosts.toml', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let directory: string;
  let first: FaultyRegistry;
  let second: FaultyRegistry;
  let third: FaultyRegistry;
  let certificates: Certificates;
  before(async () => {
    host = snapshotHost();
    directory = mkdtempSync(join(tmpdir(), 'cribus-registries-'));
    certificates = makeCertificates(directory);
    [first, second, third] = await Promise.all([
      startFaultyRegistry(),
      startFaultyRegistry(),
      startFaultyRegistry(),
    ]);
    stack = await startStack();
  });
  beforeEach(async () => {
    await removeAllImages(stack.cri);
    await rm(join(stack.root, 'etc', 'certs.d'), { recursive: true, force: true });
    for (const registry of [first, second, third]) registry.reset();
  });
  after(async () => {
    await stack.destroy();
    await Promise.all([first, second, third].map((registry) => registry.stop()));
    rmSync(directory, { recursive: true, force: true });
    assertNothingLeaked(host);
  });

  const NAME = 'registry.test/team/app:v1';
  const hosts = (toml: string, registry = 'registry.test') =>
    writeHosts(stack.root, registry, toml);
  const publish = (...registries: readonly FaultyRegistry[]) => {
    for (const registry of registries) registry.publish('team/app', 'v1', image);
  };
  const pulled = async (name = NAME) => {
    assert.equal(await pullImage(stack.cri, name), image.id);
    const status = await imageStatus(stack.cri, name);
    assert.deepEqual(status?.repoTags, [name], 'named by its registry, wherever it came from');
    await removeAllImages(stack.cri);
  };
  const forget = () => {
    for (const { requests } of [first, second, third]) requests.length = 0;
  };

  it('server is where the registry is, also below a path', async () => {
    publish(first);
    await hosts(`server = "${first.url}"\n`);
    await pulled();
    assert.deepEqual([...new Set(first.requests.map(({ url }) => url.split('/')[1]))], ['v2']);
    first.intercept = ({ url = '' }, response) => {
      if (!url.startsWith('/below/v2/')) return answer(response, 404);
      response.writeHead(307, { location: url.replace('/below', '') }).end();
      return true;
    };
    await hosts(`server = "${first.url}/below/"\n`);
    first.requests.length = 0;
    const unfollowed = first.intercept;
    first.intercept = (request, response) =>
      request.url?.startsWith('/v2/') === true ? false : unfollowed(request, response);
    await pulled();
    assert.ok(first.countOf('/below/v2/team/app/manifests/v1') > 0);
  });

  it('host entries are tried in their order and then the server; each mirror is told for whom', async () => {
    const order = [first, second].map(({ url }) => `[host."${url}"]\n`).join('');
    await hosts(`server = "${third.url}"\n${order}`);
    publish(first, second, third);
    await pulled();
    assert.equal(second.requests.length + third.requests.length, 0, 'the first has it all');
    assert.ok(first.requests.every(({ url }) => url.endsWith('?ns=registry.test')));
    first.reset();
    forget();
    await pulled();
    assert.ok(first.requests.length > 0 && second.requests.length > 0);
    assert.equal(third.requests.length, 0);
    second.reset();
    forget();
    await pulled();
    assert.ok([first, second, third].every(({ requests }) => requests.length > 0));
    third.reset();
    await refusePull(stack, NAME, { code: 'NOT_FOUND', message: /registry\.test\/team\/app/ });
  });

  it('a mirror that refuses connections, credentials or the blob is passed over for the next', async () => {
    publish(first, second);
    await hosts(`server = "${second.url}"\n[host."http://127.0.0.1:1"]\n[host."${first.url}"]\n`);
    const [, layer] = image.layers;
    const faults: readonly ((request: IncomingMessage, response: ServerResponse) => boolean)[] = [
      (_, response) => answer(response, 403),
      (_, response) => answer(response, 401, '', { 'www-authenticate': 'Basic realm="x"' }),
      ({ url }, response) => url?.includes(layer?.digest ?? '') === true && answer(response, 404),
      ({ url }, response) =>
        url?.includes(layer?.digest ?? '') === true && answer(response, 200, 'wrong'),
    ];
    for (const fault of faults) {
      first.intercept = fault;
      forget();
      await pulled();
      assert.ok(first.requests.length > 0 && second.requests.length > 0);
    }
  });

  it('capabilities decide who is asked for a tag and who for content', async () => {
    publish(first, second, third);
    await hosts(
      `server = "${third.url}"\n[host."${first.url}"]\ncapabilities = ["resolve"]\n[host."${second.url}"]\ncapabilities = ["pull"]\n`,
    );
    await pulled();
    assert.deepEqual(
      first.requests.map(({ url }) => url),
      ['/v2/team/app/manifests/v1?ns=registry.test'],
    );
    assert.equal(second.countOf('/manifests/v1'), 0);
    assert.equal(second.countOf('/blobs/'), 3);
    assert.equal(third.requests.length, 0);
    await hosts(`server = "${third.url}"\ncapabilities = ["push"]\n`);
    await refusePull(stack, NAME, { code: 'FAILED_PRECONDITION', message: /hosts\.toml/ });
    assert.equal(third.requests.length, 0);
  });

  it('skip_verify and ca decide whose certificate is believed', async () => {
    const { server, stranger } = certificates;
    const secure = await startFaultyRegistry({ tls: server });
    try {
      publish(secure);
      const ca = certificates.authority.certFile;
      const refused = [
        '',
        'skip_verify = false\n',
        `ca = "${stranger.certFile}"\n`,
        `ca = ["${stranger.certFile}"]\n`,
      ];
      for (const keys of refused) {
        await hosts(`[host."${secure.url}"]\n${keys}capabilities = ["pull", "resolve"]\n`);
        await hosts(`server = "${secure.url}"\n${keys}`);
        await refusePull(stack, NAME, unavailable);
        assert.equal(secure.requests.length, 0, keys);
      }
      await hosts('');
      writeFileSync(join(stack.root, 'etc/certs.d/registry.test/own.pem'), readFileSync(ca));
      const believed = [
        'skip_verify = true\n',
        `ca = "${ca}"\n`,
        `ca = ["${stranger.certFile}", "${ca}"]\n`,
        'ca = "own.pem"\n',
      ];
      for (const keys of believed) {
        await hosts(`server = "${secure.url}"\n${keys}`);
        await pulled();
        await hosts(`server = "http://127.0.0.1:1"\n[host."${secure.url}"]\n${keys}`);
        await pulled();
      }
    } finally {
      await secure.stop();
    }
  });

  it('client is the certificate that is shown, as pairs or as one file', async () => {
    const { server, client, authority, stranger } = certificates;
    const secure = await startFaultyRegistry({ tls: { ...server, clientCa: authority.cert } });
    try {
      publish(secure);
      const both = join(directory, 'both.pem');
      writeFileSync(both, client.cert + client.key);
      const base = `server = "${secure.url}"\nca = "${authority.certFile}"\n`;
      const pair = ({ certFile, keyFile }: typeof client) => `["${certFile}", "${keyFile}"]`;
      for (const keys of ['', `client = [${pair(stranger)}]\n`]) {
        await hosts(base + keys);
        await refusePull(stack, NAME, unavailable);
        assert.equal(secure.requests.length, 0);
      }
      for (const keys of [
        `client = [${pair(client)}]\n`,
        `client = "${both}"\n`,
        `client = ["${both}"]\n`,
      ]) {
        await hosts(base + keys);
        await pulled();
      }
    } finally {
      await secure.stop();
    }
  });

  it('header is sent with each request to its host and to no other', async () => {
    publish(first, second);
    const [, layer] = image.layers;
    first.intercept = ({ url = '' }, response) => {
      if (!url.includes(layer?.digest ?? '')) return false;
      response.writeHead(302, { location: `${third.url}${url}` }).end();
      return true;
    };
    third.publish('team/app', 'v1', image);
    await hosts(
      `server = "${second.url}"\n[host."${first.url}"]\n[host."${first.url}".header]\nX-Team = "blue"\nX-Many = ["one", "two"]\nAuthorization = "Bearer header-sesame"\n`,
    );
    await pulled();
    assert.ok(first.requests.length >= 3);
    for (const { headers } of first.requests) {
      assert.equal(headers['x-team'], 'blue');
      assert.equal(headers['x-many'], 'one, two');
      assert.equal(headers.authorization, 'Bearer header-sesame');
    }
    assert.equal(third.requests.length, 1);
    for (const { headers } of third.requests) {
      assert.equal(headers.authorization, undefined);
      assert.equal(headers['x-team'], undefined);
    }
  });

  it('override_path keeps the path as it is, and without it /v2 is added', async () => {
    const odd = await startFaultyRegistry({ prefix: '/odd/api/' });
    try {
      publish(odd);
      await hosts(
        `server = "http://127.0.0.1:1"\n[host."${odd.url}/odd/api"]\noverride_path = true\n`,
      );
      await pulled();
      assert.ok(odd.requests.every(({ url }) => url.startsWith('/odd/api/team/app/')));
      odd.requests.length = 0;
      await hosts(`server = "${odd.url}/odd/api"\n`);
      await refusePull(stack, NAME, { code: 'NOT_FOUND', message: /./ });
      assert.ok(odd.requests.every(({ url }) => url.startsWith('/odd/api/v2/team/app/')));
    } finally {
      await odd.stop();
    }
  });

  it('hosts.toml is read afresh at each pull, and without one the registry itself is asked', async () => {
    publish(first, second);
    const name = `${first.host}/team/app:v1`;
    await pulled(name);
    assert.ok(first.requests.length > 0, 'loopback speaks plain HTTP');
    forget();
    await hosts(`server = "${second.url}"\n`, first.host);
    await pulled(name);
    assert.equal(first.requests.length, 0);
    assert.ok(second.requests.length > 0);
    forget();
    await rm(join(stack.root, 'etc/certs.d', first.host), { recursive: true });
    await pulled(name);
    assert.equal(second.requests.length, 0);
  });

  it('the directory may be spelled host_port_, and _default is for all others', async () => {
    publish(first, second);
    await hosts(`server = "${first.url}"\n`, 'registry.test_5000_');
    await hosts(`server = "${second.url}"\n`, '_default');
    await pulled('registry.test:5000/team/app:v1');
    assert.ok(first.requests.length > 0 && second.requests.length === 0);
    await pulled('any.other.test/team/app:v1');
    assert.ok(second.requests.length > 0);
  });

  const bad: readonly (readonly [string, RegExp])[] = [
    ['server = 5\n', /server/],
    ['server = "ftp://x"\n', /server/],
    ['server = "http://"\n', /server/],
    ['sever = "http://x"\n', /sever/],
    ['[host."http://x"]\ncapabilities = ["fly"]\n', /capabilities.*fly/],
    ['[host."http://x"]\nskip_verify = "yes"\n', /skip_verify/],
    ['ca = "/nowhere/ca.pem"\n', /ca.*\/nowhere\/ca\.pem/],
    ['client = [["/nowhere/a", "/nowhere/b"]]\n', /client/],
    ['client = [["a", "b", "c"]]\n', /client/],
    ['[header]\n"bad name" = "x"\n', /header/],
    ['[header]\nX = 5\n', /header\.X/],
    ['[host."http://x"]\noverride_path = 1\n', /override_path/],
    ['server = "unfinished\n', /hosts\.toml:1/],
  ];
  for (const [toml, message] of bad) {
    it(`the hosts.toml ${JSON.stringify(toml)} is INVALID_ARGUMENT, names file and key, and leaves nothing`, async () => {
      await hosts(toml);
      const details = await refusePull(stack, NAME, { code: 'INVALID_ARGUMENT', message });
      assert.ok(details.includes('registry.test/hosts.toml'), details);
    });
  }

  it('credentials for one server are not shown to its mirrors', async () => {
    publish(second);
    await hosts(`server = "${second.url}"\n[host."${first.url}"]\n`);
    for (const registry of [first, second]) {
      registry.intercept = (request, response) =>
        request.headers.authorization === undefined &&
        answer(response, 401, '', { 'www-authenticate': 'Basic realm="x"' });
    }
    const auth = { username: 'kim', password: 'pass-sesame', serverAddress: second.url };
    assert.equal(await pullImage(stack.cri, NAME, { auth }), image.id);
    assert.ok(first.requests.length > 0);
    assert.ok(first.requests.every(({ headers }) => headers.authorization === undefined));
  });
});
