import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { hostsOf } from './hosts-file.ts';

describe('hosts.toml', () => {
  let certs: string;
  beforeEach(async () => {
    certs = await mkdtemp(join(tmpdir(), 'cribus-certs-'));
  });
  afterEach(() => rm(certs, { recursive: true }));
  const write = async (name: string, text: string) => {
    await mkdir(join(certs, name), { recursive: true });
    await writeFile(join(certs, name, 'hosts.toml'), text);
  };
  const bases = async (registry: string) =>
    (await hostsOf(certs, registry)).map((host) => host.base.href);

  it('has containerd’s defaults where there is none', async () => {
    assert.deepEqual(await bases('docker.io'), ['https://registry-1.docker.io/v2']);
    assert.deepEqual(await bases('ghcr.io'), ['https://ghcr.io/v2']);
    assert.deepEqual(await bases('localhost:5000'), ['http://localhost:5000/v2']);
    assert.deepEqual(await bases('127.0.0.1:443'), ['https://127.0.0.1/v2']);
  });

  it('keeps the order of the file, the server last, and reads every key', async () => {
    await writeFile(join(certs, 'ca.pem'), 'CA');
    await write(
      'r.example',
      `server = "https://up.example/sub"
       skip_verify = true
       [host."https://10.example"]
       [host."2.example:99"]
       capabilities = ["resolve"]
       ca = "../ca.pem"
       client = [["../ca.pem", "../ca.pem"], "../ca.pem"]
       [host."2.example:99".header]
       x-a = ["1", "2"]
       [host."http://1.example/v2/mirror"]
       override_path = true`,
    );
    const hosts = await hostsOf(certs, 'r.example');
    assert.deepEqual(
      hosts.map((host) => host.base.href),
      [
        'https://10.example/v2',
        'https://2.example:99/v2',
        'http://1.example/v2/mirror',
        'https://up.example/sub/v2',
      ],
    );
    const second = hosts[1];
    assert.deepEqual([second?.canPull, second?.canResolve], [false, true]);
    assert.deepEqual([second?.ca, second?.clientPairs.length], [['CA'], 2]);
    assert.deepEqual(second?.headers, { 'x-a': ['1', '2'] });
    assert.deepEqual([hosts[0]?.skipVerify, hosts[3]?.skipVerify], [false, true]);
  });

  it('is found by host_port_, by host:port, and by _default', async () => {
    await write('_default', '[host."http://d.example"]');
    await write('a.example:5', '[host."http://a.example"]');
    await write('b.example_5_', '[host."http://b.example"]');
    assert.equal((await bases('a.example:5'))[0], 'http://a.example/v2');
    assert.equal((await bases('b.example:5'))[0], 'http://b.example/v2');
    assert.deepEqual(await bases('c.example'), ['http://d.example/v2', 'https://c.example/v2']);
  });

  for (const [text, message] of [
    ['serve = "x"', /hosts\.toml: serve is unknown/],
    ['[host."https://a"]\ncapabilities = ["pul"]', /host\."https:\/\/a"\.capabilities has "pul"/],
    ['skip_verify = "yes"', /skip_verify must be true or false/],
    ['ca = "absent.pem"', /hosts\.toml: ca can't be read/],
    ['[host."ftp://a"]', /host\."ftp:\/\/a" must be http or https/],
    ['server = ', /hosts\.toml:1: /],
  ] as const) {
    it(`refuses ${JSON.stringify(text)}`, async () => {
      await write('r.example', text);
      await assert.rejects(hostsOf(certs, 'r.example'), message);
    });
  }
});
