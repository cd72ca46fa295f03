import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { checkEngine, checkKernel, checkNetwork, checkServers, pluginsIn } from './host-checks.ts';

describe('the checks of a host', () => {
  let base = '';
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'doctor-'));
  });
  afterEach(() => rmSync(base, { recursive: true }));

  it('tell an old kernel from a new one', () => {
    assert.equal(checkKernel('6.1.0-13-amd64').level, 'ok');
    assert.equal(checkKernel('5.12.0').level, 'ok');
    assert.equal(checkKernel('5.4.0-150-generic').level, 'warning');
    assert.equal(checkKernel('4.19.0').level, 'warning');
  });

  it('name the plugins of a network, each once', () => {
    const named = { cniVersion: '1.0.0', name: 'pods' };
    const bridge = { type: 'bridge', ipam: { type: 'host-local' } };
    const list = { ...named, plugins: [bridge, { type: 'portmap' }] };
    assert.deepEqual(pluginsIn(JSON.stringify(list)), ['bridge', 'host-local', 'portmap']);
    const single = { ...named, ...bridge, type: 'host-local' };
    assert.deepEqual(pluginsIn(JSON.stringify(single)), ['host-local']);
    // As some add-ons have it.
    assert.deepEqual(pluginsIn(JSON.stringify({ ...single, cniVersion: '0.3.0' })), ['host-local']);
  });

  it('name a broken network file, and the one that is used in its place', async () => {
    const config = (fallback = ''): Parameters<typeof checkNetwork>[0] => ({
      cni: {
        ...{ conf_dir: base, bin_dirs: [base], fallback_conf_dir: fallback, add_timeout_s: 1 },
      },
    });
    assert.deepEqual(
      (await checkNetwork(config())).map(({ level }) => level),
      ['warning'],
    );
    assert.equal((await checkNetwork(config('/f')))[0]?.level, 'ok');
    const good = { cniVersion: '1.0.0', name: 'pods', type: 'bridge' };
    writeFileSync(join(base, '10-a.conflist'), JSON.stringify({ ...good, cniVersion: '0.2.0' }));
    const old = (await checkNetwork(config()))[0]?.text ?? '';
    assert.match(old, /10-a\.conflist: "cniVersion" is "0\.2\.0", supported are 0\.3\.0, /);
    writeFileSync(join(base, '10-a.conflist'), '{');
    assert.match((await checkNetwork(config()))[0]?.text ?? '', /10-a\.conflist: is not JSON/);
    writeFileSync(join(base, '20-b.conf'), JSON.stringify(good));
    const texts = async () => (await checkNetwork(config())).map(({ level, text }) => level + text);
    assert.match((await texts()).join('\n'), /^problem.*10-a.*\nproblem.*20-b\.conf needs bridge/);
    writeFileSync(join(base, 'bridge'), '');
    assert.match((await texts()).join('\n'), /^problem.*10-a.*\nok.*20-b\.conf: bridge$/);
  });

  it('want the programs of own servers, and none for servers of others, wherever they run', () => {
    const own = { url: '', credentials_dir: '' };
    const started = { url: 'nats://127.0.0.1:4222', credentials_dir: '/credentials' };
    const given = { url: 'nats://127.0.0.1:4222', credentials_dir: '' };
    const looked = (nats: typeof own, redis: typeof own) =>
      checkServers({ nats, redis } as Parameters<typeof checkServers>[0]).map(({ about }) => about);
    assert.deepEqual(looked(own, started), ['nats-server', 'redis-server']);
    assert.deepEqual(looked(given, { ...given, url: 'unix:///run/redis.sock' }), []);
  });

  it('name an engine that can not be run, and go on', async () => {
    const file = join(base, 'engine');
    const look = async (text: string, mode: number) => {
      rmSync(file, { force: true });
      writeFileSync(file, text, { mode });
      return checkEngine('h', file, false);
    };
    assert.match((await look('#!/bin/sh\necho engine version 7\n', 0o755)).text, /^7 \(/);
    const unusable = [
      await look('#!/bin/sh\n', 0o644),
      await look('\x7fELF of another machine', 0o755),
      await look('#!/no/such/interpreter\n', 0o755),
      await look('#!/bin/sh\nexit 127\n', 0o755),
      await look('#!/bin/sh\nkill -SEGV $$\n', 0o755),
      await look('#!/bin/sh\nexec sleep 60\n', 0o755),
    ];
    for (const { level, text, advice } of unusable) {
      assert.equal(level, 'problem', text);
      assert.ok(text.startsWith(`${file} `) && advice?.includes(file), text);
    }
    assert.equal((await checkEngine('h', join(base, 'absent'), false)).level, 'warning');
  });
});
