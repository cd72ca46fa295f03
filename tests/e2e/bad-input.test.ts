// Wrong requests, verb by verb: the gRPC code, a message that names what is wrong, and nothing left.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  CreateContainerRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  NamespaceMode,
  PullImageRequest,
  RemoveImageRequest,
  RunPodSandboxRequest,
  SecurityProfile_ProfileType,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { before, describe, it } from 'mocha';
import type { Cri, Method, RequestOfMethod } from './harness/cri.ts';
import { failureOf, imageStatus, type Refusal } from './harness/image-calls.ts';
import { podConfig, runSandbox, shellContainer, startContainer } from './harness/pods.ts';
import { HANDLERS, newTraces, stackSuite, tracesOf } from './harness/suite.ts';

type PodInput = NonNullable<
  NonNullable<Parameters<typeof RunPodSandboxRequest.fromPartial>[0]>['config']
>;
type ContainerInput = NonNullable<Parameters<typeof shellContainer>[2]>;

const ABSENT = 'a'.repeat(64);
const invalid = (message: RegExp): Refusal => ({ code: 'INVALID_ARGUMENT', message });

/** What is changed of a right sandbox configuration, and what must be said. */
const WRONG_PODS: Readonly<Record<string, readonly [PodInput, Refusal]>> = {
  'no metadata': [{ metadata: undefined }, invalid(/metadata/)],
  'no name': [{ metadata: { name: '', uid: 'u', namespace: 'n' } }, invalid(/metadata\.name/)],
  'no uid': [{ metadata: { name: 'p', uid: '', namespace: 'n' } }, invalid(/metadata\.uid/)],
  'no namespace': [
    { metadata: { name: 'p', uid: 'u', namespace: '' } },
    invalid(/metadata\.namespace/),
  ],
  'a relative log directory': [{ logDirectory: 'logs' }, invalid(/log_directory "logs"/)],
  'a hostname of 65 bytes': [{ hostname: 'h'.repeat(65) }, invalid(/hostname "h{65}"/)],
  'a DNS server with a line break': [
    { dnsConfig: { servers: ['1.2.3.4\nnameserver 6.6.6.6'] } },
    invalid(/dns_config\.servers/),
  ],
  'a host port beyond the last': [
    { portMappings: [{ containerPort: 80, hostPort: 70_000 }] },
    invalid(/70000:80/),
  ],
  'a host address that is none': [
    { portMappings: [{ containerPort: 80, hostPort: 8080, hostIp: 'here' }] },
    invalid(/"here"/),
  ],
  'a sysctl of the host with hostNetwork': [
    {
      linux: {
        sysctls: { 'net.ipv4.ip_forward': '1' },
        securityContext: { namespaceOptions: { network: NamespaceMode.NODE } },
      },
    },
    invalid(/net\.ipv4\.ip_forward/),
  ],
  'a sysctl that no namespace has': [
    { linux: { sysctls: { 'vm.swappiness': '1' } } },
    invalid(/vm\.swappiness/),
  ],
  'a cgroup parent that goes up': [
    { linux: { cgroupParent: '/a/../../b' } },
    invalid(/cgroup_parent/),
  ],
  'a network namespace by TARGET': [
    { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.TARGET } } } },
    invalid(/namespace_options\.network/),
  ],
  'a user namespace by CONTAINER': [
    {
      linux: {
        securityContext: {
          namespaceOptions: { usernsOptions: { mode: NamespaceMode.CONTAINER } },
        },
      },
    },
    invalid(/userns_options\.mode/),
  ],
};

const mount = (change: NonNullable<ContainerInput['mounts']>[number]): ContainerInput => ({
  mounts: [{ containerPath: '/data', hostPath: '/etc', readonly: true, ...change }],
});
const security = (
  change: NonNullable<NonNullable<ContainerInput['linux']>['securityContext']>,
): ContainerInput => ({ linux: { securityContext: change } });
const { Localhost } = SecurityProfile_ProfileType;

/** The same of a container configuration. */
const WRONG_CONTAINERS: Readonly<Record<string, readonly [ContainerInput, Refusal]>> = {
  'no metadata': [{ metadata: undefined }, invalid(/metadata/)],
  'no name': [{ metadata: { name: '' } }, invalid(/metadata\.name/)],
  'no image': [{ image: { image: '' } }, invalid(/image/)],
  'an image that was not pulled': [
    { image: { image: '127.0.0.1:1/none:1' } },
    { code: 'NOT_FOUND', message: /127\.0\.0\.1:1\/none:1/ },
  ],
  'a host path that is absent': [
    mount({ hostPath: '/no/such/path' }),
    invalid(/host path \/no\/such\/path does not exist/),
  ],
  'a relative host path': [mount({ hostPath: 'etc' }), invalid(/"etc" is not absolute/)],
  'a relative container path': [mount({ containerPath: 'd' }), invalid(/"d" is not absolute/)],
  'a recursive read-only mount that is writable': [
    mount({ readonly: false, recursiveReadOnly: true }),
    invalid(/\/data.*read.only/i),
  ],
  'a recursive read-only mount that propagates': [
    mount({ recursiveReadOnly: true, propagation: 1 }),
    invalid(/\/data.*(propagation|PRIVATE)/i),
  ],
  'a log path that leaves its directory': [{ logPath: '../../x.log' }, invalid(/\.\.\/x\.log/)],
  'a group without a user': [security({ runAsGroup: { value: 1n } }), invalid(/run_as_group/)],
  'a user that the image lacks': [
    security({ runAsUsername: 'nobody-here' }),
    invalid(/nobody-here/),
  ],
  'a capability that there is not': [
    security({ capabilities: { addCapabilities: ['FLY'] } }),
    invalid(/FLY/),
  ],
  'a seccomp profile that is absent': [
    security({ seccomp: { profileType: Localhost, localhostRef: '/no/profile.json' } }),
    invalid(/\/no\/profile\.json/),
  ],
  'a seccomp profile by a relative path': [
    security({ seccomp: { profileType: Localhost, localhostRef: 'profile.json' } }),
    invalid(/profile\.json/),
  ],
  'a device that is absent': [
    { devices: [{ hostPath: '/dev/none', containerPath: '/dev/none', permissions: 'rwm' }] },
    invalid(/\/dev\/none/),
  ],
  'a target that does not exist': [
    security({ namespaceOptions: { pid: NamespaceMode.TARGET, targetId: ABSENT } }),
    { code: 'NOT_FOUND', message: /a{64}/ },
  ],
  'a command that is absent': [{ command: ['/no/such/cmd'] }, invalid(/\/no\/such\/cmd/)],
  'a working directory that is a file': [
    { workingDir: '/etc/passwd' },
    invalid(/\/etc\/passwd|not a directory/i),
  ],
};

describe('wrong requests', () => {
  const suite = stackSuite();
  let bare: readonly string[] = [];
  before(() => {
    bare = tracesOf(suite.stack);
  });
  const nothingListed = async (cri: Cri, podIds: readonly string[] = []) => {
    const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
    assert.deepEqual(
      items.map(({ id }) => id),
      podIds,
    );
    const { containers } = await cri.call('listContainers', ListContainersRequest.fromPartial({}));
    assert.deepEqual(containers, []);
  };

  for (const [what, [change, refusal]] of Object.entries(WRONG_PODS)) {
    it(`refuses RunPodSandbox with ${what}, and leaves nothing`, async () => {
      const { cri, stack } = suite;
      const config = { ...(await podConfig(stack)), ...change };
      const request = RunPodSandboxRequest.fromPartial({ config });
      await failureOf(cri.call('runPodSandbox', request), refusal);
      await nothingListed(cri);
      assert.deepEqual(newTraces(stack, bare), []);
    });
  }

  it('refuses RunPodSandbox without a configuration, and for a handler that is not there', async () => {
    const { cri, stack } = suite;
    await failureOf(
      cri.call('runPodSandbox', RunPodSandboxRequest.fromPartial({})),
      invalid(/config/),
    );
    const config = await podConfig(stack);
    for (const runtimeHandler of ['kata', 'run c', '../runc', 'x'.repeat(300), '*', '>']) {
      const request = RunPodSandboxRequest.fromPartial({ config, runtimeHandler });
      const message = new RegExp(
        runtimeHandler.slice(0, 60).replace(/[.*+?^${}()|[\]\\]/g, '\\$&'),
      );
      await failureOf(cri.call('runPodSandbox', request), invalid(message));
    }
    await nothingListed(cri);
    assert.deepEqual(newTraces(stack, bare), []);
  });

  it('refuses a second pod of the same name, uid and attempt with the id of the first', async () => {
    const { cri, stack } = suite;
    const config = await podConfig(stack);
    const run = (hostname: string) =>
      cri.call(
        'runPodSandbox',
        RunPodSandboxRequest.fromPartial({ config: { ...config, hostname } }),
      );
    const { podSandboxId } = await run('first');
    await failureOf(run('other'), { code: 'ALREADY_EXISTS', message: new RegExp(podSandboxId) });
    await nothingListed(cri, [podSandboxId]);
  });

  for (const [what, [change, refusal]] of Object.entries(WRONG_CONTAINERS)) {
    it(`refuses a container with ${what}, and leaves nothing`, async () => {
      const { cri, stack, image } = suite;
      const { podSandboxId, config } = await runSandbox(stack);
      const traces = tracesOf(stack);
      const container = shellContainer(image, 'sleep 60', change);
      await failureOf(startContainer(cri, podSandboxId, container, config), refusal);
      await nothingListed(cri, [podSandboxId]);
      assert.deepEqual(newTraces(stack, traces), []);
      assert.equal(existsSync(join(stack.root, 'pod-logs', 'x.log')), false);
    });
  }

  it('refuses CreateContainer without a configuration, and in a sandbox that is not there', async () => {
    const { cri, image } = suite;
    const create = (request: Parameters<typeof CreateContainerRequest.fromPartial>[0]) =>
      cri.call('createContainer', CreateContainerRequest.fromPartial(request ?? {}));
    await failureOf(create({}), invalid(/pod_sandbox_id/));
    await failureOf(create({ podSandboxId: ABSENT }), invalid(/config/));
    await failureOf(create({ podSandboxId: ABSENT, config: shellContainer(image, 'true') }), {
      code: 'NOT_FOUND',
      message: /a{64}/,
    });
  });

  const byContainer = ['startContainer', 'containerStatus', 'reopenContainerLog'] as const;
  const goneContainer = ['stopContainer', 'removeContainer'] as const;
  const gonePod = ['stopPodSandbox', 'removePodSandbox'] as const;
  const call = (method: Method, ids: object): Promise<unknown> =>
    suite.cri.call(method, {
      verbose: false,
      timeout: 0n,
      cmd: ['true'],
      ...ids,
    } as RequestOfMethod<typeof method>);

  for (const method of [...byContainer, 'execSync'] as const) {
    it(`answers ${method} of an unknown container with NOT_FOUND and its id, of none with INVALID_ARGUMENT`, async () => {
      const message = /container "a{64}" does not exist/;
      await failureOf(call(method, { containerId: ABSENT }), { code: 'NOT_FOUND', message });
      await failureOf(call(method, { containerId: '' }), invalid(/container_id/));
    });
  }

  it('answers podSandboxStatus of an unknown sandbox with NOT_FOUND and its id, of none with INVALID_ARGUMENT', async () => {
    const message = /sandbox "a{64}" does not exist/;
    await failureOf(call('podSandboxStatus', { podSandboxId: ABSENT }), {
      code: 'NOT_FOUND',
      message,
    });
    await failureOf(call('podSandboxStatus', { podSandboxId: '' }), invalid(/pod_sandbox_id/));
  });

  for (const [methods, key] of [
    [goneContainer, 'containerId'],
    [gonePod, 'podSandboxId'],
  ] as const) {
    for (const method of methods) {
      it(`answers ${method} of what is absent with success, and of an empty id with INVALID_ARGUMENT`, async () => {
        await call(method, { [key]: ABSENT });
        await call(method, { [key]: 'no id at all' });
        await failureOf(call(method, { [key]: '' }), invalid(/_id is empty/));
      });
    }
  }

  it('names a malformed image reference, and answers nil for an image that is absent', async () => {
    const { cri, registry } = suite;
    for (const image of ['UPPER/Case:1', 'a b', 'name:', 'name@sha256:12', ':tag', 'a//b']) {
      const request = PullImageRequest.fromPartial({ image: { image } });
      await failureOf(cri.call('pullImage', request), {
        code: 'INVALID_ARGUMENT',
        message: new RegExp(image.replace(/[/]/g, '\\/')),
      });
    }
    await failureOf(cri.call('pullImage', PullImageRequest.fromPartial({})), invalid(/image/));
    const absent = `${registry.host}/test/absent:1`;
    const request = PullImageRequest.fromPartial({ image: { image: absent } });
    await failureOf(cri.call('pullImage', request), {
      code: 'NOT_FOUND',
      message: /test\/absent:1/,
    });
    assert.equal(await imageStatus(cri, absent), undefined);
    await cri.call('removeImage', RemoveImageRequest.fromPartial({ image: { image: absent } }));
    await failureOf(cri.call('removeImage', RemoveImageRequest.fromPartial({})), invalid(/image/));
  });

  it('serves on with every handler after all of these', async () => {
    const { runtimeHandlers } = await suite.cri.call('status', { verbose: false });
    assert.equal(runtimeHandlers.length, HANDLERS.length + 1);
  });
});
