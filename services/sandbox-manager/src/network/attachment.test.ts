// The CNI protocol against plugins that record what they were given.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { createSemaphore } from '@cribus/chassis/queue.ts';
import { createTestLog } from '@cribus/chassis/testing/fake-service.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { PodSandboxConfig, Protocol } from '@cribus/contracts/gen/cri/v1/api.ts';
import { parseNetworkList } from '@cribus/contracts/network-list.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import {
  type Attachment,
  type AttachmentDeps,
  attach,
  detach,
  networkIntent,
  wanted,
} from './attachment.ts';
import { capabilityArgs } from './capabilities.ts';

const RESULT = {
  cniVersion: '1.0.0',
  interfaces: [{ name: 'br' }, { name: 'eth0', sandbox: '/pins/net' }],
  ips: [
    { address: '192.0.2.1/24', interface: 0 },
    { address: '192.0.2.7/24', interface: 1 },
    { address: '2001:db8::7/64', interface: 1 },
  ],
};

interface Call {
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: Readonly<Record<string, unknown>>;
}

describe('CNI attachment', () => {
  let root: string;
  let deps: AttachmentDeps;
  let attachment: Attachment;
  const config = PodSandboxConfig.fromPartial({
    metadata: { name: 'web', namespace: 'ns', uid: 'bad;uid', attempt: 1 },
    portMappings: [
      { protocol: Protocol.UDP, containerPort: 53, hostPort: 5353, hostIp: '192.0.2.9' },
      { protocol: Protocol.TCP, containerPort: 80, hostPort: 0 },
    ],
    annotations: { 'kubernetes.io/ingress-bandwidth': '1M' },
  });
  const network = networkIntent(
    parseNetworkList(
      JSON.stringify({
        cniVersion: '1.0.0',
        name: 'net',
        plugins: [
          { type: 'first', mtu: 1400 },
          { type: 'second', capabilities: { portMappings: true, bandwidth: false } },
        ],
      }),
    ),
  );

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'cni-run-'));
    deps = {
      binDirectories: [root],
      timeoutMs: 5_000,
      clock: systemClock,
      metrics: createMetrics('test'),
      slots: createSemaphore(2),
      portmapTurn: createSemaphore(1),
    };
    attachment = {
      sandboxId: 'abc',
      netns: join(root, 'no-pin'),
      config,
      capabilities: capabilityArgs(config, ''),
      log: createTestLog().log,
      signal: systemClock.timeout(10_000),
    };
    await plugin('first', `[ $CNI_COMMAND = ADD ] && echo '${JSON.stringify(RESULT)}'; exit 0`);
    await plugin('second', '');
  });
  afterEach(() => rm(root, { recursive: true }));

  async function plugin(type: string, body: string): Promise<void> {
    const script = `#!/bin/sh
n=${root}/$CNI_COMMAND-${type}
env >$n.env
cat >$n.in
echo $CNI_COMMAND ${type} >>${root}/calls
${body}
`;
    await writeFile(join(root, type), script, { mode: 0o755 });
  }
  async function call(name: string): Promise<Call> {
    const lines = (await readFile(join(root, `${name}.env`), 'utf8')).trim().split('\n');
    const env = Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2)));
    return { env, stdin: JSON.parse(await readFile(join(root, `${name}.in`), 'utf8')) };
  }
  const calls = async () => (await readFile(join(root, 'calls'), 'utf8')).trim().split('\n');

  it('chains results, and hands each plugin what it declares', async () => {
    const attached = await attach(deps, attachment, network);
    assert.deepEqual(attached.ips, ['192.0.2.7', '2001:db8::7']);
    assert.deepEqual(JSON.parse(attached.resultJson), RESULT);
    const first = await call('ADD-first');
    assert.deepEqual(first.stdin, { cniVersion: '1.0.0', name: 'net', type: 'first', mtu: 1400 });
    assert.equal(first.env['CNI_CONTAINERID'], 'abc');
    assert.equal(first.env['CNI_NETNS'], attachment.netns);
    assert.equal(first.env['CNI_IFNAME'], 'eth0');
    assert.equal(first.env['CNI_PATH'], root);
    // The uid would break the notation: left out rather than read as something else.
    assert.equal(
      first.env['CNI_ARGS'],
      'IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc',
    );
    assert.ok(first.env['PATH']?.includes('/usr/sbin') && first.env['HOME'] === undefined);
    const second = await call('ADD-second');
    assert.deepEqual(second.stdin, {
      cniVersion: '1.0.0',
      name: 'net',
      type: 'second',
      prevResult: RESULT,
      runtimeConfig: {
        portMappings: [{ hostPort: 5353, containerPort: 53, protocol: 'udp', hostIP: '192.0.2.9' }],
      },
    });
  });

  it('detaches in reverse with the cached result, without a namespace that is gone', async () => {
    const attached = await attach(deps, attachment, network);
    await unlink(join(root, 'calls'));
    await detach(deps, attachment, attached);
    assert.deepEqual(await calls(), ['DEL second', 'DEL first']);
    const first = await call('DEL-first');
    assert.deepEqual(first.stdin['prevResult'], RESULT);
    assert.equal(first.env['CNI_NETNS'], '');
  });

  it('gives every plugin its DEL, skips one that is not installed, then tells the failure', async () => {
    await plugin('second', 'echo gone wrong >&2; exit 3');
    await assert.rejects(
      detach(deps, attachment, network),
      (error) =>
        isFailure(error, 'wrong_state') &&
        error.message ===
          'CNI DEL (second): sandbox abc: the plugin ended with exit 3 and said: gone wrong',
    );
    assert.deepEqual(await calls(), ['DEL second', 'DEL first']);
    await unlink(join(root, 'second'));
    await detach(deps, attachment, network);
  });

  it('cuts a plugin that hangs, and one whose call is given up', async () => {
    await plugin('first', 'sleep 60');
    await assert.rejects(
      attach({ ...deps, timeoutMs: 200 }, attachment, network),
      (error) => isFailure(error, 'timeout') && /CNI ADD \(first\): .* 0\.2 s/.test(error.message),
    );
    const reason = new Error('given up');
    const signal = AbortSignal.any([systemClock.timeout(10_000), AbortSignal.abort(reason)]);
    await assert.rejects(attach(deps, { ...attachment, signal }, network), reason);
  });

  it('runs no two portmaps at once, which would both make the chains that they share', async () => {
    // Fails where another one runs meanwhile.
    await plugin('portmap', `mkdir ${root}/chains || exit 4; sleep 0.1; rmdir ${root}/chains`);
    const plugins = [{ type: 'first' }, { type: 'portmap', capabilities: { portMappings: true } }];
    const list = { cniVersion: '1.0.0', name: 'net', plugins };
    const mapped = networkIntent(parseNetworkList(JSON.stringify(list)));
    await Promise.all(
      ['one', 'two'].map((sandboxId) => attach(deps, { ...attachment, sandboxId }, mapped)),
    );
    assert.equal((await calls()).filter((one) => one === 'ADD portmap').length, 2);
  });

  it('leaves out plugins that would do nothing for this pod', () => {
    const portmap = { type: 'portmap', capabilities: { portMappings: true } };
    const plugins = [
      { type: 'bridge' },
      portmap,
      { type: 'bandwidth' },
      { type: 'bandwidth', ingressRate: 1_000 },
    ];
    const types = (capabilities: object) => plugins.filter(wanted({ ...capabilities })).length;
    assert.equal(types({}), 2);
    assert.equal(types({ portMappings: [] }), 3);
    assert.equal(types({ portMappings: [], bandwidth: {} }), 4);
  });

  it('wants an address, and a result that can be read', async () => {
    await plugin('first', `echo '{"cniVersion":"1.0.0","ips":[]}'`);
    await assert.rejects(attach(deps, attachment, network), /network net gave it no address/);
    await plugin('first', 'echo hello');
    await assert.rejects(attach(deps, attachment, network), /result is not JSON/);
  });
});
