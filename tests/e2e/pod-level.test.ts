// What belongs to the pod and not to one of its containers: its name, its files, its sysctls, its host
// ports, the host's network, and what its annotations reach.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@cribus/cli/tour/registry.ts';
import {
  NamespaceMode,
  PodSandboxStatusRequest,
  Protocol,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { fetchText } from './harness/http.ts';
import { failureOf } from './harness/image-calls.ts';
import {
  exec,
  podConfig,
  type RunningPod,
  runPod,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = 'exec sleep 1000';
const WEB = 'httpd -f -p 8080 -h /www';

interface SandboxInfo {
  readonly netnsPath: string;
  readonly runtimeSpec: object;
}

describe('at the level of the pod', () => {
  const suite = stackSuite();
  const infoOf = async (podSandboxId: string): Promise<SandboxInfo> => {
    const { info } = await suite.cri.call(
      'podSandboxStatus',
      PodSandboxStatusRequest.fromPartial({ podSandboxId, verbose: true }),
    );
    return JSON.parse(info['info'] ?? '{}') as SandboxInfo;
  };
  const output = async (containerId: string, ...cmd: string[]) => {
    const { stdout, stderr, exitCode } = await exec(suite.cri, containerId, cmd);
    assert.equal(exitCode, 0, `${cmd.join(' ')}: ${stderr}`);
    return stdout;
  };

  for (const handler of HANDLERS) {
    it(`gives a pod its full domain name of 64 characters, its resolv.conf and 64 MiB of shared memory under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const name = `${'a'.repeat(40)}.${'b'.repeat(23)}`;
      const pod = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: {
          hostname: name,
          dnsConfig: {
            servers: ['10.96.0.10', '2001:db8::53'],
            searches: ['default.svc.cluster.local', 'cluster.local'],
            options: ['ndots:5', 'edns0'],
          },
        },
      });
      assert.equal(await output(pod.containerId, 'hostname'), `${name}\n`);
      assert.equal(await output(pod.containerId, 'cat', '/etc/hostname'), `${name}\n`);
      assert.equal(
        await output(pod.containerId, 'cat', '/etc/resolv.conf'),
        [
          'search default.svc.cluster.local cluster.local',
          'nameserver 10.96.0.10',
          'nameserver 2001:db8::53',
          'options ndots:5 edns0',
          '',
        ].join('\n'),
      );
      const shm = await output(pod.containerId, 'df', '-k', '/dev/shm');
      assert.match(shm, /\s65536\s.*\/dev\/shm/);
      await output(pod.containerId, 'sh', '-c', 'echo shared >/dev/shm/file');
      const second = await startContainer(
        cri,
        pod.podId,
        shellContainer(image, SLEEP, { name: 'second' }),
        pod.config,
      );
      assert.equal(await output(second, 'cat', '/dev/shm/file'), 'shared\n');
      assert.equal(await output(second, 'hostname'), `${name}\n`);
    });

    it(`leaves /etc/hosts to the kubelet, who mounts its own, under ${handler}`, async () => {
      const { stack, image } = suite;
      const directory = join(stack.root, 'kubelet');
      mkdirSync(directory, { recursive: true });
      const hostPath = join(directory, `etc-hosts-${handler}`);
      const text =
        '# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.1.2.3\tweb.example\n';
      writeFileSync(hostPath, text);
      const { containerId } = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        container: { mounts: [{ containerPath: '/etc/hosts', hostPath }] },
      });
      assert.equal(await output(containerId, 'cat', '/etc/hosts'), text);
      await output(containerId, 'sh', '-c', 'echo 10.1.2.4 more >>/etc/hosts');
      assert.equal(readFileSync(hostPath, 'utf8'), `${text}10.1.2.4 more\n`);
    });
  }

  it('refuses a name that is longer than the kernel allows, and takes none of it', async () => {
    const config = await podConfig(suite.stack, {
      hostname: `${'a'.repeat(40)}.${'b'.repeat(24)}`,
    });
    await failureOf(suite.cri.call('runPodSandbox', RunPodSandboxRequest.fromPartial({ config })), {
      code: 'INVALID_ARGUMENT',
      message: /hostname .* longer than 64 bytes/,
    });
  });

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`sets safe and unsafe sysctls in the pod and nowhere else under ${handler}`, async () => {
      const { stack, image } = suite;
      const sysctls = {
        'kernel.shm_rmid_forced': '1',
        'net.ipv4.ip_local_port_range': '41000\t42000',
        'net.ipv4.tcp_syncookies': '0',
        'kernel.msgmax': '65000',
        'kernel.sem': '300\t33000\t200\t200',
        'fs.mqueue.msg_max': '17',
        'net.core.somaxconn': '777',
        'net/ipv4/conf/eth0/arp_ignore': '1',
      };
      const before = execFileSync('sysctl', ['-n', 'kernel.msgmax', 'net.core.somaxconn'], {
        encoding: 'utf8',
      });
      const { containerId } = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: { linux: { sysctls, securityContext: { namespaceOptions: { pid: 1 } } } },
      });
      for (const [name, value] of Object.entries(sysctls)) {
        const file = `/proc/sys/${name.replaceAll('.', '/')}`;
        assert.equal(await output(containerId, 'cat', file), `${value}\n`, name);
      }
      const after = execFileSync('sysctl', ['-n', 'kernel.msgmax', 'net.core.somaxconn'], {
        encoding: 'utf8',
      });
      assert.equal(after, before);
    });
  }

  it('refuses sysctls that a Sentry would not show to its containers, with UNIMPLEMENTED', async () => {
    const config = await podConfig(suite.stack, {
      linux: {
        sysctls: { 'kernel.shm_rmid_forced': '1' },
        securityContext: { namespaceOptions: { pid: 1 } },
      },
    });
    await failureOf(
      suite.cri.call(
        'runPodSandbox',
        RunPodSandboxRequest.fromPartial({ config, runtimeHandler: 'gvisor' }),
      ),
      { code: 'UNIMPLEMENTED', message: /kernel\.shm_rmid_forced.*kernel of their own/ },
    );
  });

  it('maps one host port at two addresses of the host to two pods', async () => {
    const { stack, image } = suite;
    const hostPort = await freePort();
    const at = (hostIp: string, text: string) =>
      runPod(stack, {
        image,
        script: `mkdir /w; echo ${text} >/w/index.html; httpd -f -p 8080 -h /w`,
        pod: { portMappings: [{ containerPort: 8080, hostPort, hostIp }] },
      });
    await at('127.0.0.1', 'first');
    await at('127.0.0.2', 'second');
    for (const [address, text] of [
      ['127.0.0.1', 'first\n'],
      ['127.0.0.2', 'second\n'],
    ] as const) {
      const url = `http://${address}:${hostPort}/`;
      assert.equal(await eventually(url, () => fetchText(url)), text);
    }
    await assert.rejects(fetchText(`http://127.0.0.3:${hostPort}/`));
  });

  it('maps one host port for TCP, UDP and SCTP at once, also on 127.0.0.1, and unmaps them with the pod', async () => {
    const { stack, cri, image } = suite;
    const hostPort = await freePort();
    const pod = await runPod(stack, {
      image,
      script: WEB,
      pod: {
        portMappings: [
          { containerPort: 8080, hostPort, protocol: Protocol.TCP },
          { containerPort: 8081, hostPort, protocol: Protocol.UDP },
          { containerPort: 8082, hostPort, protocol: Protocol.SCTP },
        ],
      },
    });
    const url = `http://127.0.0.1:${hostPort}/`;
    assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
    const echo = await startUdpEcho((await infoOf(pod.podId)).netnsPath, 8081);
    try {
      assert.equal(await askUdp(hostPort, 'are you there'), 'are you there');
    } finally {
      echo.stop();
    }
    // Debian's kernels have SCTP as a module that need not be there: the rule is what we see.
    const rules = () => execFileSync('iptables', ['-t', 'nat', '-S'], { encoding: 'utf8' });
    const sctp = new RegExp(`-p sctp .*--dport ${hostPort} .*${pod.ip}:8082`);
    assert.match(rules(), sctp);
    await cri.call('stopPodSandbox', { podSandboxId: pod.podId });
    assert.doesNotMatch(rules(), new RegExp(`--dport ${hostPort}\\b`));
  });

  it('lets a gVisor pod with hostNetwork serve at a port of the host and reach a server of the host', async () => {
    const { stack, image } = suite;
    const server = createServer((_request, response) => response.end('from the host\n'));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const port = await freePort();
      const network = { network: NamespaceMode.NODE, pid: NamespaceMode.CONTAINER };
      const pod: RunningPod = await runPod(stack, {
        image,
        script: `httpd -f -p 127.0.0.1:${port} -h /www`,
        handler: 'gvisor',
        pod: { linux: { securityContext: { namespaceOptions: network } } },
        container: { linux: { securityContext: { namespaceOptions: network } } },
      });
      const url = `http://127.0.0.1:${port}/`;
      assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
      const { port: hosts } = server.address() as AddressInfo;
      const ask = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 ${hosts}`;
      assert.match(await output(pod.containerId, 'sh', '-c', ask), /from the host\n$/);
      assert.equal(pod.ip, '');
      assert.equal(await output(pod.containerId, 'hostname'), `${hostname()}\n`);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });
});

describe('annotations of a pod', () => {
  const suite = stackSuite({
    config: [
      '[runtimes.handlers.runc]\nfamily = "runc"\nengine = "runc"',
      'pod_annotations = ["example.com/*", "io.kubernetes.cri.sandbox-id"]',
      'container_annotations = ["example.com/container"]',
      '[runtimes.handlers.gvisor]\nfamily = "gvisor"\nengine = "runsc"',
      '[runtimes.handlers.open]\nfamily = "gvisor"\nengine = "runsc"',
      'pod_annotations = ["dev.gvisor.internal.*"]',
    ].join('\n'),
  });

  const ANNOTATIONS = {
    'example.com/one': '1',
    'example.org/two': '2',
    'dev.gvisor.internal.note': 'x',
    'dev.gvisor.flag.debug': 'true',
    'io.kubernetes.cri.sandbox-id': 'another',
  };
  /** Of the pod's and the container's, those that reach the engine. */
  async function reached(handler: string) {
    const { stack, image } = suite;
    const pod = await runPod(stack, {
      image,
      script: SLEEP,
      handler,
      pod: { annotations: ANNOTATIONS },
      container: { annotations: { 'example.com/container': '3', 'example.com/other': '4' } },
    });
    const specOf = (id: string) => {
      const path = join(stack.root, 'run/handlers', handler, id, 'config.json');
      return (JSON.parse(readFileSync(path, 'utf8')) as { annotations: Record<string, string> })
        .annotations;
    };
    const foreign = (annotations: Record<string, string>) =>
      Object.fromEntries(
        Object.entries(annotations).filter(([name]) => !name.startsWith('io.kubernetes.cri.')),
      );
    const spec = specOf(pod.containerId);
    return {
      pod,
      own: spec['io.kubernetes.cri.sandbox-id'],
      container: foreign(spec),
      sandbox: handler === 'runc' ? {} : foreign(specOf(pod.podId)),
    };
  }

  it('reach an engine only as the handler allows, and none of them renames a sandbox', async () => {
    const { pod, own, container } = await reached('runc');
    assert.deepEqual(container, { 'example.com/one': '1', 'example.com/container': '3' });
    assert.equal(own, pod.podId);
  });

  it('never reach gVisor with its own names unless somebody allows them', async () => {
    const { container, sandbox } = await reached('gvisor');
    assert.deepEqual([container, sandbox], [{}, {}]);
    const open = await reached('open');
    const allowed = { 'dev.gvisor.internal.note': 'x' };
    assert.deepEqual([open.container, open.sandbox], [allowed, allowed]);
  });
});

/** Answers every datagram with itself, inside a network namespace. */
async function startUdpEcho(netns: string, port: number): Promise<{ stop(): void }> {
  const program = [
    'const s = require("node:dgram").createSocket("udp4");',
    's.on("message", (m, from) => s.send(m, from.port, from.address));',
    `s.bind(${port}, () => console.log("bound"));`,
  ].join('');
  const child = spawn('nsenter', [`--net=${netns}`, process.execPath, '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return { stop: () => child.kill('SIGKILL') };
}

/** The answer to a datagram that is sent to 127.0.0.1. */
async function askUdp(port: number, text: string): Promise<string> {
  const socket = createSocket('udp4');
  try {
    socket.send(text, port, '127.0.0.1');
    const [message] = (await once(socket, 'message', { signal: AbortSignal.timeout(5_000) })) as [
      Buffer,
    ];
    return message.toString();
  } finally {
    socket.close();
  }
}
