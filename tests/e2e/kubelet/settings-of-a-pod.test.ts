// What a pod's manifest asks for besides its programs, as a kubelet plays it: volumes, users and rights,
// the host's network, ports and processes, limits and the overhead of its RuntimeClass.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { freePort } from '@cribus/cli/tour/registry.ts';
import { Capability, SecurityProfile_ProfileType } from '@cribus/contracts/gen/cri/v1/api.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { describe, it } from 'mocha';
import { fetchText } from '../harness/http.ts';
import { exec } from '../harness/pods.ts';
import { eventually } from '../harness/stack.ts';
import { publishFiles } from './atomic-files.ts';
import { kubeletSuite, type SharingPod } from './kubelet-suite.ts';
import { podCgroup } from './manifest.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
const MIB = 1024 * 1024;

describe('the settings of a pod', () => {
  const node = kubeletSuite();
  const allRun = (pods: readonly SharingPod[]) =>
    node.kubelet.until('they run', () =>
      pods.every(({ pod }) =>
        pod.containers.every(({ name }) => node.kubelet.shown(pod, name).state === 'running'),
      ),
    );
  const sh = ({ pod }: SharingPod, name: string, script: string) =>
    exec(node.cri, node.kubelet.containerOf(pod, name).id, ['sh', '-c', script]);
  const mount = (path: string, ...args: string[]): void => {
    execFileSync('mount', [...args, path]);
    node.undo(() => execFileSync('umount', [path]));
  };

  it('give it volumes: emptyDir on disk and in limited memory, hostPath, and configMap, secret, projected and downward API files that change at one moment, but by subPath not', async () => {
    const { kubelet, suite } = node;
    const pods = node.addToEach((volume) => {
      const at = (name: string): string => join(volume, name);
      for (const name of ['disk', 'memory', 'secret', 'projected']) mkdirSync(at(name));
      mount(at('memory'), '-t', 'tmpfs', '-o', 'size=1m,mode=0777', 'tmpfs');
      mount(at('secret'), '-t', 'tmpfs', 'tmpfs');
      publishFiles(at('projected'), { config: 'one', labels: 'tier="one"' });
      publishFiles(at('secret'), { token: 'first' }, 0o400);
      writeFileSync(at('host-file'), 'of the host');
      writeFileSync(at('sub-path'), '');
      mount(at('sub-path'), '--bind', realpathSync(at('projected/config')));
      const mounts = [
        { containerPath: '/disk', hostPath: at('disk') },
        { containerPath: '/memory', hostPath: at('memory') },
        { containerPath: '/etc/projected', hostPath: at('projected'), readonly: true },
        { containerPath: '/etc/secret', hostPath: at('secret'), readonly: true },
        { containerPath: '/etc/config', hostPath: at('sub-path'), readonly: true },
        { containerPath: '/host/file', hostPath: at('host-file') },
      ];
      const containers = ['writer', 'reader'].map((name) => ({
        name,
        image: suite.image,
        script: WAIT,
        mounts,
      }));
      return { name: 'volumes', containers };
    });
    await allRun(pods);
    const show = 'cd /etc; cat projected/config projected/labels secret/token config';
    for (const each of pods) {
      const write = 'echo shared | tee /disk/x >/memory/x; echo too >>/host/file';
      assert.equal((await sh(each, 'writer', write)).exitCode, 0);
      assert.equal((await sh(each, 'reader', 'cat /disk/x /memory/x')).stdout, 'shared\nshared\n');
      assert.equal(readFileSync(join(each.volume, 'host-file'), 'utf8'), 'of the hosttoo\n');
      const fill = await sh(each, 'writer', 'dd if=/dev/zero of=/memory/big bs=64k count=32');
      assert.match(fill.stderr, /No space left/);
      assert.ok(statSync(join(each.volume, 'memory', 'big')).size < MIB);
      for (const path of ['/etc/projected/new', '/etc/secret/new', '/etc/config']) {
        assert.match((await sh(each, 'writer', `echo >${path}`)).stderr, /Read-only/, path);
      }
      assert.equal((await sh(each, 'reader', show)).stdout, 'onetier="one"firstone');
      publishFiles(join(each.volume, 'projected'), { config: 'two', labels: 'tier="two"' });
      publishFiles(join(each.volume, 'secret'), { token: 'second' }, 0o400);
      await eventually('the files are new', async () => {
        const { stdout } = await sh(each, 'reader', show);
        assert.equal(stdout, 'twotier="two"secondone');
        return true;
      });
      // A subPath is bound anew at each start of a container.
      const subPath = join(each.volume, 'sub-path');
      execFileSync('umount', ['--lazy', subPath]);
      execFileSync('mount', [
        '--bind',
        realpathSync(join(each.volume, 'projected/config')),
        subPath,
      ]);
      await sh(each, 'writer', 'kill -TERM 1');
    }
    await kubelet.until('the writers are back', () =>
      pods.every(({ pod }) => {
        const { state, restartCount } = kubelet.shown(pod, 'writer');
        return state === 'running' && restartCount === 1;
      }),
    );
    for (const each of pods) {
      assert.equal((await sh(each, 'writer', 'cat /disk/x /memory/x')).stdout, 'shared\nshared\n');
      const both = await Promise.all(
        ['writer', 'reader'].map(async (name) => (await sh(each, name, 'cat /etc/config')).stdout),
      );
      assert.deepEqual(both, ['two', 'one']);
    }
  });

  it('give it its user, groups, fsGroup, capabilities, seccomp and read-only root filesystem, and a privileged container its rights', async () => {
    const { kubelet, suite } = node;
    const script = [
      'id -u; id -g; id -G',
      'touch /data/f && stat -c %g /data/f',
      "sed -n 's/^CapEff:\\s*//p' /proc/self/status",
      `echo done; ${WAIT}`,
    ].join('\n');
    const pods = node.addToEach((volume) => {
      const data = join(volume, 'data');
      mkdirSync(data);
      chownSync(data, 0, 2000);
      chmodSync(data, 0o2775);
      const restricted = {
        runAsUser: { value: 1000n },
        runAsGroup: { value: 3000n },
        supplementalGroups: [2000n],
        noNewPrivs: true,
        capabilities: Capability.fromPartial({ dropCapabilities: ['ALL'] }),
        seccomp: {
          profileType: SecurityProfile_ProfileType.RuntimeDefault,
          localhostRef: '',
        },
      };
      const { image } = suite;
      return {
        name: 'rights',
        containers: [
          {
            name: 'restricted',
            image,
            script,
            securityContext: restricted,
            mounts: [{ containerPath: '/data', hostPath: data }],
          },
          {
            name: 'privileged',
            image,
            script: WAIT,
            securityContext: { privileged: true, readonlyRootfs: true },
          },
        ],
      };
    });
    await allRun(pods);
    for (const each of pods) {
      const log = await eventually('it is told', async () => {
        const text = kubelet.logOf(each.pod, 'restricted');
        return text.includes('done') && text;
      });
      const lines = log.split('\n').map((line) => line.split(' ').slice(3).join(' '));
      assert.deepEqual(lines.slice(0, 6), [
        '1000',
        '3000',
        '3000 2000',
        '2000',
        '0000000000000000',
        'done',
      ]);
      assert.equal(statSync(join(each.volume, 'data', 'f')).uid, 1000);
      const may = 'touch /root/x; mount -t tmpfs x /root && touch /root/x && echo mounted';
      const { stdout, stderr } = await sh(each, 'privileged', may);
      assert.equal(stdout, 'mounted\n');
      assert.match(stderr, /Read-only/);
    }
  });

  it("let it serve at a port of the host, in the host's network, and see the processes of the host", async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const serve = (port: number): string => `httpd -p ${port} -h /www; ${WAIT}`;
    const served = await Promise.all(
      ['runc', 'gvisor'].map(async (handler) => {
        const [hostPort, port] = [await freePort(), await freePort()];
        const mapped = node.add({
          name: `host-port-${handler}`,
          handler,
          ports: [{ containerPort: 8080, hostPort }],
          containers: [{ name: 'main', image, script: serve(8080) }],
        });
        const direct = node.add({
          name: `host-network-${handler}`,
          handler,
          hostNetwork: true,
          containers: [
            {
              name: 'main',
              image,
              script: serve(port),
              readiness: { httpGet: { port, path: '/index.html' } },
            },
          ],
        });
        return { pods: [mapped, direct], ports: [hostPort, port] };
      }),
    );
    const observer = node.add({
      name: 'host-pid',
      handler: 'runc',
      hostPID: true,
      containers: [{ name: 'main', image, script: WAIT }],
    });
    for (const { pods, ports } of served) {
      for (const pod of pods) await kubelet.untilRunning(pod);
      for (const port of ports) {
        const url = `http://127.0.0.1:${port}/`;
        assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
      }
      assert.equal(kubelet.ipOf(pods[1] ?? observer), '');
    }
    const seen = await exec(node.cri, kubelet.containerOf(observer, 'main').id, [
      'cat',
      `/proc/${process.pid}/cmdline`,
    ]);
    assert.equal(seen.stdout, readFileSync('/proc/self/cmdline', 'utf8'));
  });

  it('limit it to its memory and the overhead of its RuntimeClass, and show OOMKilled beyond', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const eat = 'x=a; while :; do x=$x$x$x$x; done';
    const pods = node.addToEach(() => ({
      name: 'overhead',
      overheadMemoryBytes: 64 * MIB,
      containers: [
        {
          name: 'main',
          image,
          script: `if [ -e /v/go ]; then ${WAIT}; fi; while [ ! -e /v/go ]; do sleep 0.1; done; ${eat}`,
          limits: { cpuMilli: 500, memoryBytes: 48 * MIB },
        },
      ],
    }));
    await allRun(pods);
    const cgroups = detectCgroups();
    for (const { handler, pod } of pods) {
      const { sandboxes } = kubelet.statusOf(pod);
      const { info } = await kubelet.client.ask('podSandboxStatus', {
        podSandboxId: sandboxes[0]?.id ?? '',
        verbose: true,
      });
      const { config } = JSON.parse(info['info'] ?? '{}') as { config: { linux: object } };
      assert.partialDeepStrictEqual(config.linux, {
        overhead: { memory_limit_in_bytes: 64 * MIB },
        resources: { memory_limit_in_bytes: 48 * MIB },
      });
      const cgroup = podCgroup(node.paths, pod);
      const names = cgroups.pids(cgroup).map((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8'));
      // The Sentry is what the overhead is for, so it has to be within the pod's cgroup.
      if (handler === 'gvisor') assert.match(names.join(), /exe|runsc/);
      assert.equal(cgroups.usage(cgroup).memoryLimitBytes, BigInt(112 * MIB));
    }
    for (const { volume } of pods) writeFileSync(join(volume, 'go'), '');
    await kubelet.until('they were killed and are back', () =>
      pods.every(({ pod }) => {
        const { state, lastReason } = kubelet.shown(pod, 'main');
        return state === 'running' && lastReason === 'OOMKilled';
      }),
    );
    for (const { handler, pod } of pods) {
      const [, killed] = kubelet.statusOf(pod).containers;
      assert.deepEqual([killed?.exitCode, kubelet.shown(pod, 'main').restartCount], [137, 1]);
      // A Sentry is killed as a whole, and with it the sandbox.
      const { sandboxes } = kubelet.statusOf(pod);
      assert.equal(sandboxes[0]?.metadata?.attempt, handler === 'gvisor' ? 1 : 0);
    }
  });
});
