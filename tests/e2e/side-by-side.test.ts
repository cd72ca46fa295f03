// Two stacks on one machine at once: nothing of one is in the way of the other.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { request } from 'node:http';
import { networkInterfaces } from 'node:os';
import { freePort } from '@cribus/cli/tour/registry.ts';
import { Protocol } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { pull, type RunningPod, runPod } from './harness/pods.ts';
import { eventually, type Stack, startStack } from './harness/stack.ts';

describe('two stacks at once', () => {
  let host: HostSnapshot;
  let registry: TestRegistry;
  const stacks: Stack[] = [];
  const pods: RunningPod[] = [];
  const hostPorts: number[] = [];

  before(async () => {
    host = snapshotHost();
    registry = await startTestRegistry();
    stacks.push(...(await Promise.all([startStack({ name: 'one' }), startStack({ name: 'two' })])));
    for (const [index, stack] of stacks.entries()) {
      hostPorts.push(await freePort());
      await pull(stack.cri, registry.busybox);
      const hostPort = hostPorts[index] ?? 0;
      const script = `echo stack ${index} > /www/index.html; exec httpd -f -p 8080 -h /www`;
      const portMappings = [{ protocol: Protocol.TCP, containerPort: 8080, hostPort, hostIp: '' }];
      const pod = { name: 'web', portMappings };
      pods.push(await runPod(stack, { image: registry.busybox, script, pod }));
    }
  });

  after(async () => {
    for (const stack of stacks) await stack.destroy();
    await registry?.stop();
    assertNothingLeaked(host);
  });

  it('have bridges, subnets and addresses of their own', () => {
    const bridges = Object.entries(networkInterfaces())
      .filter(([name]) => name.startsWith('cb-') && !host.links.has(name))
      .map(([name, rows]) => ({ name, cidr: rows?.find((row) => row.family === 'IPv4')?.cidr }));
    assert.equal(bridges.length, 2);
    assert.equal(new Set(bridges.map(({ cidr }) => cidr)).size, 2);
    for (const { cidr } of bridges) assert.match(cidr ?? '', /^10\.\d+\.\d+\.1\/24$/);
    const nets = pods.map((pod) => pod.ip.replace(/\.\d+$/, ''));
    assert.equal(new Set(nets).size, 2);
    for (const net of nets) assert.ok(bridges.some(({ cidr }) => cidr === `${net}.1/24`));
  });

  it('use ports of their own', async () => {
    const addresses = await Promise.all(
      stacks.map(async (stack) => {
        const { metrics } = JSON.parse((await stack.cribus('status', '--json')).stdout);
        return Object.values<string>(metrics);
      }),
    );
    assert.equal(addresses.flat().length, 10);
    assert.equal(new Set(addresses.flat()).size, 10);
  });

  it('list and answer only what is theirs, on their pod IPs and their host ports', async () => {
    for (const [index, stack] of stacks.entries()) {
      const listed = (await stack.cribus('pods')).stdout.trimEnd().split('\n');
      assert.equal(listed.length, 2);
      assert.ok(listed[1]?.startsWith(pods[index]?.podId.slice(0, 13) ?? '?'));
      await answers(`http://${pods[index]?.ip}:8080/`, index);
      await answers(`http://${ownAddress(index)}:${hostPorts[index]}/`, index);
    }
  });

  it('are put back one by one: the first with its pods goes, the host port of the other stays', async () => {
    const down = await stacks[0]?.cribus('down', '--pods');
    assert.equal(down?.code, 0, down?.stderr);
    await answers(`http://${ownAddress(1)}:${hostPorts[1]}/`, 1);
    assert.equal(
      (await stacks[1]?.status())?.parts.every((part) => part.state === 'running'),
      true,
    );
    const nat = execFileSync('iptables', ['-t', 'nat', '-S'], { encoding: 'utf8' });
    assert.match(nat, new RegExp(`--dport ${hostPorts[1]} `));
    assert.doesNotMatch(nat, new RegExp(`--dport ${hostPorts[0]} `));
    const second = await stacks[1]?.cribus('down', '--pods');
    assert.equal(second?.code, 0, second?.stderr);
    await registry.stop();
    assertNothingLeaked(host);
  });

  /** The gateway address of the pod's own bridge, which is this host's. */
  function ownAddress(index: number): string {
    return (pods[index]?.ip ?? '').replace(/\.\d+$/, '.1');
  }
});

async function answers(url: string, index: number): Promise<void> {
  await eventually(`${url} answers`, async () => (await page(url)) === `stack ${index}\n`, 5_000);
}

function page(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { timeout: 2_000 }, (answer) => {
      let text = '';
      answer.on('data', (chunk) => {
        text += chunk;
      });
      answer.on('end', () => resolve(text));
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.on('error', reject);
    outgoing.end();
  });
}
