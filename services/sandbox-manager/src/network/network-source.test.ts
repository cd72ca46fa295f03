// Which configuration wins, what is refused, and what NetworkReady says about it.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isFailure } from '@cribus/contracts/failure.ts';
import { parseNetworkList } from '@cribus/contracts/network-list.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { createNetworkSource, type NetworkSource } from './network-source.ts';

const list = (name: string, more: object = {}) =>
  JSON.stringify({ cniVersion: '1.0.0', name, plugins: [{ type: 'fake' }], ...more });

describe('network source', () => {
  let root: string;
  let source: NetworkSource;
  const put = (path: string, text: string) => writeFile(join(root, path), text);

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'cni-source-'));
    await mkdir(join(root, 'fallback'));
    await mkdir(join(root, 'bin'));
    await writeFile(join(root, 'bin/fake'), '#!/bin/sh\n', { mode: 0o755 });
    source = createNetworkSource({
      directory: join(root, 'conf'),
      fallbackDirectory: join(root, 'fallback'),
      binDirectories: [join(root, 'bin')],
    });
  });
  afterEach(() => rm(root, { recursive: true }));

  it('names the directory while there is none, and takes one that appears at once', async () => {
    const { ready, reason, message } = source.readiness();
    assert.deepEqual([ready, reason], [false, 'NetworkPluginNotReady']);
    assert.equal(message, `no CNI network configuration in ${join(root, 'conf')}`);
    assert.throws(
      () => source.current(),
      (error) => isFailure(error, 'unavailable'),
    );
    await put('fallback/10-own.conflist', list('own'));
    assert.equal(source.current().list.name, 'own');
    await mkdir(join(root, 'conf'));
    await put('conf/20-b.conflist', list('b'));
    assert.equal(source.current().list.name, 'b');
    await put('conf/10-a.conf', JSON.stringify({ cniVersion: '0.3.1', name: 'a', type: 'fake' }));
    await put('conf/00-README.txt', 'not one');
    assert.deepEqual(source.current().list, {
      name: 'a',
      cniVersion: '0.3.1',
      plugins: [{ cniVersion: '0.3.1', name: 'a', type: 'fake' }],
    });
    await unlink(join(root, 'conf/10-a.conf'));
    await put('conf/20-b.conflist', list('rewritten'));
    assert.equal(source.current().list.name, 'rewritten');
    assert.equal(source.readiness().ready, true);
  });

  it('never hides a broken configuration behind the fallback', async () => {
    await put('fallback/10-own.conflist', list('own'));
    await mkdir(join(root, 'conf'));
    await put('conf/10-broken.conflist', '{');
    assert.equal(source.readiness().ready, false);
    assert.match(source.readiness().message, /10-broken\.conflist: is not JSON/);
    await put('conf/20-good.conflist', list('good'));
    assert.equal(source.current().list.name, 'good');
    assert.match(source.readiness().message, /20-good\.conflist; unusable: .*10-broken/);
  });

  it('says which plugin is missing', async () => {
    await put('fallback/10-own.conflist', list('own', { plugins: [{ type: 'absent' }] }));
    assert.match(source.readiness().message, /not in .*bin: absent$/);
  });

  it('refuses lists that can not be run', () => {
    const rows: [string, RegExp][] = [
      ['[]', /not a JSON object/],
      [list('../x'), /"name" must start/],
      [list('n', { cniVersion: '0.2.0' }), /"cniVersion" is "0.2.0", supported are 0.3.0/],
      [list('n', { plugins: [] }), /1 to 32 plugins/],
      [list('n', { plugins: [{ type: '../../bin/sh' }] }), /with a slash/],
      [list('n', { plugins: ['x'] }), /plugin 0 is not a JSON object/],
    ];
    for (const [text, message] of rows) {
      assert.throws(
        () => parseNetworkList(text),
        (error) => isFailure(error, 'invalid_argument') && message.test(error.message),
        text,
      );
    }
  });
});
