// Handler gvisor: a Sentry for each pod with a kernel of its own, its containers inside it, its network,
// and clear words for what runsc can't do.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '@cribus/cli/tour/registry.ts';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  ContainerState,
  ListContainersRequest,
  ListPodSandboxRequest,
  NamespaceMode,
  PodSandboxState,
  RunPodSandboxRequest,
  SecurityProfile_ProfileType,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { hasCode } from './harness/cri.ts';
import { fetchText } from './harness/http.ts';
import { failureOf } from './harness/image-calls.ts';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { patient } from './harness/patience.ts';
import {
  containerStatus,
  exec,
  pidOf,
  podConfig,
  pull,
  runPod,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { eventually, readLog, type Stack, startStack } from './harness/stack.ts';
import { stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const handler = 'gvisor';

describe('pods in gVisor', () => {
  const suite = stackSuite();
  /** Pids of the Sentries of this stack. */
  const sentries = () =>
    readdirSync('/proc').filter((name) => {
      if (!/^\d+$/.test(name)) return false;
      try {
        const line = readFileSync(`/proc/${name}/cmdline`, 'utf8');
        return line.startsWith('runsc-sandbox') && line.includes(suite.stack.root);
      } catch {
        return false;
      }
    });

  it('runs the containers of a pod in one Sentry, where they reach each other on 127.0.0.1', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, {
      image,
      script: 'httpd -p 8080 -h /www; while :; do sleep 0.05; done',
      handler,
    });
    const second = await startContainer(
      cri,
      pod.podId,
      shellContainer(image, SLEEP, { name: 'second' }),
      pod.config,
    );
    assert.equal(sentries().length, 1);
    assert.equal(await pidOf(suite.cri, pod.containerId), await pidOf(suite.cri, second));
    const ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 8080";
    await eventually('an answer on 127.0.0.1', async () =>
      (await exec(cri, second, ['sh', '-c', ask])).stdout.endsWith('hello from a pod\n'),
    );
    const { stdout } = await exec(cri, second, ['ls', '/www']);
    assert.equal(stdout, 'index.html\n', 'each has a root filesystem of its own');
    await exec(cri, pod.containerId, ['sh', '-c', 'echo mine > /www/mine']);
    assert.equal((await exec(cri, second, ['ls', '/www/mine'])).exitCode, 1);
    await runPod(stack, { image, script: SLEEP, handler });
    assert.equal(sentries().length, 2, 'another pod has a Sentry of its own');
  });

  it('shows a kernel of its own in uname, unlike runc, whose kernel is the one of the host', async () => {
    const { stack, cri, image } = suite;
    const [inside, plain] = await Promise.all([
      runPod(stack, { image, script: SLEEP, handler }),
      runPod(stack, { image, script: SLEEP, handler: 'runc' }),
    ]);
    const kernel = async (id: string) => (await exec(cri, id, ['uname', '-r'])).stdout.trim();
    assert.equal(await kernel(plain.containerId), release());
    assert.match(await kernel(inside.containerId), /^4\.(4\.0|19\.0-gvisor)$/);
    const { stdout } = await exec(cri, inside.containerId, ['dmesg']);
    assert.match(stdout, /gVisor/i);
  });

  it('answers HTTP at the pod IP and at a hostPort', async () => {
    const { stack, image } = suite;
    const hostPort = await freePort();
    const pod = await runPod(stack, {
      image,
      script: 'exec httpd -f -p 8080 -h /www',
      handler,
      pod: { portMappings: [{ containerPort: 8080, hostPort }] },
    });
    for (const url of [`http://${pod.ip}:8080/`, `http://127.0.0.1:${hostPort}/`]) {
      assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
    }
  });

  it('keeps exit codes that its monitor does not know, also of many containers that end at once', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP, handler });
    const codes = [0, 1, 2, 7, 42, 126, 255];
    const ids = await Promise.all(
      codes.map((code) =>
        startContainer(
          cri,
          pod.podId,
          shellContainer(image, `echo code ${code}; exit ${code}`, { name: `c-${code}` }),
          pod.config,
        ),
      ),
    );
    for (const [index, code] of codes.entries()) {
      const status = await eventually(`the end with ${code}`, async () => {
        const one = await containerStatus(cri, ids[index] ?? '');
        return one.state === ContainerState.CONTAINER_EXITED ? one : undefined;
      });
      assert.deepEqual(
        [status.exitCode, status.reason],
        [code, code === 0 ? 'Completed' : 'Error'],
      );
      assert.deepEqual(
        (await readLog(status.logPath)).map(({ text }) => text),
        [`code ${code}`],
      );
    }
    const { state } = await containerStatus(cri, pod.containerId);
    assert.equal(state, ContainerState.CONTAINER_RUNNING, 'the others live on');
  });

  it('shares process ids as the pod asks: not at all, with a target, or with the whole pod', async () => {
    const { stack, cri, image } = suite;
    const seenBy = async (id: string) => (await exec(cri, id, ['ps', '-o', 'args'])).stdout;
    const withPid = (options: object) => ({
      linux: { securityContext: { namespaceOptions: options } },
    });
    const pod = await runPod(stack, {
      image,
      script: 'exec sleep 1001',
      handler,
      container: withPid({ pid: NamespaceMode.CONTAINER }),
    });
    const add = (name: string, options: object) =>
      startContainer(
        cri,
        pod.podId,
        shellContainer(image, 'exec sleep 1002', { name, ...withPid(options) }),
        pod.config,
      );
    const own = await add('own', { pid: NamespaceMode.CONTAINER });
    assert.doesNotMatch(await seenBy(own), /sleep 1001/);
    const debug = await add('debug', { pid: NamespaceMode.TARGET, targetId: pod.containerId });
    assert.match(await seenBy(debug), /sleep 1001/);
    const shared = await add('shared', { pid: NamespaceMode.POD });
    assert.match(await seenBy(shared), /catatonit/);
  });

  it("refuses the host's process ids and IPC with a sentence, and leaves nothing of the pod", async () => {
    const { stack, cri } = suite;
    for (const options of [{ pid: NamespaceMode.NODE }, { ipc: NamespaceMode.NODE }]) {
      const config = await podConfig(stack, {
        linux: { securityContext: { namespaceOptions: options } },
      });
      await assert.rejects(
        cri.call(
          'runPodSandbox',
          RunPodSandboxRequest.fromPartial({ config, runtimeHandler: handler }),
        ),
        (error) =>
          hasCode(error, GRPC_CODE.UNIMPLEMENTED) &&
          /handler gvisor can't give a pod the host's (process ids|IPC)/.test(String(error)),
      );
    }
    const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
    assert.deepEqual(items, []);
  });

  it('reports a pod whose Sentry was killed as not ready, and its containers as killed', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP, handler });
    const [sentry] = sentries();
    assert.ok(sentry !== undefined);
    process.kill(Number(sentry), 'SIGKILL');
    await eventually('the pod is not ready', async () => {
      const { status } = await cri.call('podSandboxStatus', {
        podSandboxId: pod.podId,
        verbose: false,
      });
      return status?.state === PodSandboxState.SANDBOX_NOTREADY;
    });
    const ended = await eventually('the container has ended', async () => {
      const status = await containerStatus(cri, pod.containerId);
      return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
    });
    assert.equal(ended.exitCode, 137);
  });

  it('holds up no command of another pod where a Sentry hangs, and ends those of its own at their time-outs', async () => {
    const { stack, cri, image } = suite;
    const hung = await runPod(stack, { image, script: SLEEP, handler });
    const [sentry] = sentries();
    assert.ok(sentry !== undefined);
    const well = await runPod(stack, { image, script: SLEEP, handler });
    const running = exec(cri, hung.containerId, ['sleep', '1000'], 2);
    running.catch(() => undefined);
    await sleep(1_000);
    process.kill(Number(sentry), 'SIGSTOP');
    try {
      // Many more than are started at once; the first few take their places before they are seen to hang.
      const probes = Array.from({ length: 30 }, () => exec(cri, hung.containerId, ['true'], 1));
      const over = Promise.allSettled(probes);
      await sleep(3_000);
      for (let count = 0; count < 5; count += 1) {
        const began = performance.now();
        assert.equal((await exec(cri, well.containerId, ['echo', 'well'], 1)).stdout, 'well\n');
        const tookMs = performance.now() - began;
        assert.ok(tookMs < patient(1_500), `answered after ${tookMs} ms`);
      }
      await failureOf(running, { code: 'DEADLINE_EXCEEDED', message: /was killed after 2000 ms/ });
      process.kill(Number(sentry), 'SIGCONT');
      await over;
    } finally {
      process.kill(Number(sentry), 'SIGCONT');
    }
    assert.equal((await exec(cri, hung.containerId, ['echo', 'again'])).stdout, 'again\n');
  });

  it('runs as a user, reads an environment and mounts a host directory', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, {
      image,
      script: SLEEP,
      handler,
      container: {
        envs: [{ key: 'COLOUR', value: Buffer.from('blue') }],
        mounts: [{ containerPath: '/data', hostPath: `${stack.root}/etc`, readonly: true }],
        linux: {
          securityContext: { runAsUser: { value: 1000n }, readonlyRootfs: true },
          resources: { memoryLimitInBytes: 64n * 1024n * 1024n },
        },
      },
    });
    const cmd = ['sh', '-c', 'id -u; echo $COLOUR; ls -d /data; touch /x; touch /data/x'];
    const { stdout, stderr } = await exec(cri, containerId, cmd);
    assert.equal(stdout, '1000\nblue\n/data\n');
    assert.equal(stderr.match(/Read-only file system|Permission denied/g)?.length, 2);
  });

  it('lets a privileged container mount inside its Sentry only', async () => {
    const { stack, cri, image } = suite;
    const linux = { securityContext: { privileged: true } };
    const { containerId } = await runPod(stack, {
      image,
      script: SLEEP,
      handler,
      pod: { linux },
      container: { linux },
    });
    const script = 'mount -t tmpfs inside /www && touch /www/mounted && ls /www';
    assert.deepEqual(await exec(cri, containerId, ['sh', '-c', script]), {
      exitCode: 0,
      stdout: 'mounted\n',
      stderr: '',
    });
    assert.doesNotMatch(readFileSync('/proc/self/mounts', 'utf8'), /^inside /m);
  });

  it('refuses an AppArmor profile of the host, which runsc would ignore, and takes the default one for none', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP, handler });
    const { Localhost, RuntimeDefault, Unconfined } = SecurityProfile_ProfileType;
    const startWith = (name: string, profileType: SecurityProfile_ProfileType) => {
      const apparmor = { profileType, localhostRef: profileType === Localhost ? 'strict' : '' };
      const config = shellContainer(image, SLEEP, {
        name,
        linux: { securityContext: { apparmor } },
      });
      return startContainer(cri, pod.podId, config, pod.config);
    };
    await failureOf(startWith('local', Localhost), {
      code: 'UNIMPLEMENTED',
      message: /apparmor: handler gvisor applies no profiles, and so not "strict"/,
    });
    await startWith('default', RuntimeDefault);
    await startWith('unconfined', Unconfined);
  });

  it('says clearly that a command is not in the image, and leaves no container', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP, handler });
    const config = shellContainer(image, '', { name: 'absent', command: ['/no/such/command'] });
    await failureOf(startContainer(cri, pod.podId, config, pod.config), {
      code: 'INVALID_ARGUMENT',
      message: /no\/such\/command|no such file/,
    });
    const { containers } = await cri.call('listContainers', ListContainersRequest.fromPartial({}));
    const running = containers.filter(({ state }) => state === ContainerState.CONTAINER_RUNNING);
    assert.deepEqual(
      running.map(({ id }) => id),
      [pod.containerId],
    );
  });
});

describe('a runsc at a path of its own', () => {
  let base: string;
  let host: HostSnapshot;
  let registry: TestRegistry;
  let stack: Stack;

  before(async () => {
    host = snapshotHost();
    base = await mkdtemp(join(tmpdir(), 'cribus-e2e-'));
    const engine = join(base, 'newer runsc');
    const script = `#!/bin/sh\necho "$*" >> '${base}/asked'\nexec runsc "$@"\n`;
    await writeFile(engine, script, { mode: 0o755 });
    registry = await startTestRegistry();
    const handlers = `[runtimes.handlers.gvisor]\nfamily = "gvisor"\nengine = "${engine}"\n`;
    stack = await startStack({ config: `[runtimes]\ndefault = "gvisor"\n${handlers}` });
    await pull(stack.cri, registry.busybox);
  });
  after(async () => {
    await stack?.destroy();
    await registry?.stop();
    await rm(base, { recursive: true, force: true });
    assertNothingLeaked(host);
  });

  it('runs pods with the runsc whose path the configuration names', async () => {
    const pod = await runPod(stack, { image: registry.busybox, script: SLEEP });
    assert.match((await exec(stack.cri, pod.containerId, ['uname', '-r'])).stdout, /^4\./);
    const asked = await readFile(join(base, 'asked'), 'utf8');
    assert.match(asked, new RegExp(`^.* create .*${pod.podId}$`, 'm'));
    assert.match(asked, new RegExp(`^.* start .*${pod.containerId}$`, 'm'));
  });
});
