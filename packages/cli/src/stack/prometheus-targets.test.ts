import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { stackPaths } from '@cribus/contracts/paths.ts';
import { describe, it } from 'mocha';
import { prometheusTargets, writePrometheusTargets } from './prometheus-targets.ts';

function configWith(address: string) {
  const ports = ['image-service', 'sandbox-manager', 'runtime-runc', 'runtime-gvisor'].map(
    (name, index) => `${name} = ${9101 + index}`,
  );
  return parseConfig(
    `[metrics]\naddress = "${address}"\n[metrics.ports]\n${ports.join('\n')}\ncri-gateway = 9105\n`,
    { file: 'test' },
  );
}

describe('the targets for Prometheus', () => {
  it('are the five services with their labels', () => {
    const rows = JSON.parse(prometheusTargets(configWith('127.0.0.1'), 'node-7'));
    assert.deepEqual(rows, [
      { targets: ['127.0.0.1:9101'], labels: { service: 'image-service', node: 'node-7' } },
      { targets: ['127.0.0.1:9102'], labels: { service: 'sandbox-manager', node: 'node-7' } },
      { targets: ['127.0.0.1:9103'], labels: { service: 'runtime-runc', node: 'node-7' } },
      { targets: ['127.0.0.1:9104'], labels: { service: 'runtime-gvisor', node: 'node-7' } },
      { targets: ['127.0.0.1:9105'], labels: { service: 'cri-gateway', node: 'node-7' } },
    ]);
  });

  it('are addresses that can be dialled', () => {
    for (const [address, target] of [
      ['0.0.0.0', '127.0.0.1:9101'],
      ['::', '[::1]:9101'],
      ['fd00::7', '[fd00::7]:9101'],
      ['10.0.0.7', '10.0.0.7:9101'],
    ] as const) {
      const [first] = JSON.parse(prometheusTargets(configWith(address), 'n'));
      assert.deepEqual(first.targets, [target]);
    }
  });

  it('can be read by any user, and no list of the other files can', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'cribus-targets-'));
    try {
      const roots = { run: directory, state: directory, etc: directory, log: directory };
      const paths = { ...stackPaths(roots), generatedDirectory: directory };
      const config = configWith('127.0.0.1');
      await writePrometheusTargets({ directory, config, paths, tag: 'abcd1234' }, config);
      const file = join(directory, 'prometheus-targets.json');
      assert.equal((await stat(file)).mode & 0o777, 0o644);
      assert.equal((await stat(directory)).mode & 0o777, 0o711);
      const [first] = JSON.parse(await readFile(file, 'utf8'));
      assert.equal(first.labels.node, `${hostname()}-abcd1234`);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
