// What the runtime says of itself: Version, Status, RuntimeConfig and UpdateRuntimeConfig.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { CgroupDriver, UpdateRuntimeConfigRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

describe('what the runtime says of itself', () => {
  const suite = stackSuite();

  it('answers Version with four texts, of which the kubelet checks two', async () => {
    const version = await suite.cri.call('version', { version: '0.1.0' });
    assert.equal(version.version, '0.1.0');
    assert.equal(version.runtimeApiVersion, 'v1');
    assert.equal(version.runtimeName, 'cribus');
    assert.match(version.runtimeVersion, /^\d+\.\d+\.\d+/);
  });

  it('is ready with its network, and names every handler with features and the default by ""', async () => {
    const { status, info, runtimeHandlers, features } = await suite.cri.call('status', {
      verbose: false,
    });
    assert.deepEqual(
      status?.conditions.map(({ type, status: ready }) => [type, ready]),
      [
        ['RuntimeReady', true],
        ['NetworkReady', true],
      ],
    );
    assert.deepEqual(info, {});
    assert.deepEqual(runtimeHandlers.map(({ name }) => name).sort(), ['', ...HANDLERS].sort());
    const featuresOf = (name: string) =>
      runtimeHandlers.find((handler) => handler.name === name)?.features;
    assert.deepEqual(featuresOf(''), featuresOf('runc'), 'the default is runc');
    for (const name of HANDLERS) {
      assert.equal(featuresOf(name)?.recursiveReadOnlyMounts, true, name);
      // Probed, not copied.
      assert.equal(featuresOf(name)?.userNamespaces, name !== 'gvisor', name);
    }
    assert.equal(features?.supplementalGroupsPolicy, true);
    assert.equal(features.userNamespacesHostNetwork, true);
  });

  it('tells parts, configuration and what the host lacks as JSON in a verbose Status', async () => {
    const { info } = await suite.cri.call('status', { verbose: true });
    const read = (key: string): unknown => JSON.parse(info[key] ?? '');
    for (const key of Object.keys(info)) read(key);
    const owners = read('owners') as { name: string; pid: number; absence: string | null }[];
    for (const name of [
      'image-service',
      'sandbox-manager',
      ...HANDLERS.map((h) => `runtime.${h}`),
    ]) {
      const owner = owners.find((one) => one.name === name);
      assert.ok(owner !== undefined && owner.pid > 1 && owner.absence === null, name);
    }
    assert.equal(read('cgroupDriver'), 'cgroupfs');
    const warnings = (read('warnings') as string[]).join('\n');
    const status = readFileSync('/proc/self/status', 'utf8');
    const bounding = BigInt(`0x${/^CapBnd:\s*(\S+)$/m.exec(status)?.[1]}`);
    const hasSysResource = (bounding & (1n << 24n)) !== 0n;
    assert.equal(/oom_score_adj/.test(warnings), !hasSysResource, warnings);
    const { default: handler } = (read('config') as { runtimes: { default: string } }).runtimes;
    assert.equal(handler, 'runc');
  });

  it('answers the cgroup driver in RuntimeConfig, filled in, as systemd is the zero', async () => {
    const { linux } = await suite.cri.call('runtimeConfig', {});
    assert.equal(linux?.cgroupDriver, CgroupDriver.CGROUPFS);
  });

  it('takes a pod CIDR by UpdateRuntimeConfig and says what is wrong with one that is none', async () => {
    const update = (podCidr: string) =>
      suite.cri.call(
        'updateRuntimeConfig',
        UpdateRuntimeConfigRequest.fromPartial({ runtimeConfig: { networkConfig: { podCidr } } }),
      );
    await update('10.77.0.0/24');
    await update('');
    await failureOf(update('10.77.0.0/99'), {
      code: 'INVALID_ARGUMENT',
      message: /10\.77\.0\.0\/99/,
    });
  });
});
