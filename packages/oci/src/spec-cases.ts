// What the tests of this package share: a host, an image, inputs made from them or from recorded
// requests of a kubelet, and the comparison with golden files.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { isFailure } from '@cribus/contracts/failure.ts';
import {
  ContainerConfig,
  CreateContainerRequest,
  type Device,
  type LinuxContainerSecurityContext,
  PodSandboxConfig,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { buildContainerSpec } from './build-spec.ts';
import { CAPABILITIES } from './capabilities.ts';
import type { ImageConfig } from './image-config.ts';
import type { HostFacts, SpecInput } from './spec-input.ts';

/** A host with all of the capabilities, seccomp, cgroup v2 and nothing else. */
export const HOST: HostFacts = {
  cgroupVersion: 'v2',
  cgroupDriver: 'systemd',
  capabilities: CAPABILITIES,
  oomScoreAdjFloor: -1000,
  appArmor: false,
  selinux: false,
  seccomp: true,
  ociVersion: '1.0.2',
  arch: 'x64',
  hugetlb: true,
  devices: [
    { path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 },
    { path: '/dev/null', type: 'c', major: 1, minor: 3, fileMode: 0o666, uid: 0, gid: 0 },
    { path: '/dev/pts/0', type: 'c', major: 136, minor: 0, fileMode: 0o620, uid: 0, gid: 5 },
    { path: '/dev/snd/seq', type: 'c', major: 116, minor: 1, fileMode: 0o660, uid: 0, gid: 29 },
    { path: '/dev/snd/timer', type: 'c', major: 116, minor: 33, fileMode: 0o660, uid: 0, gid: 29 },
    { path: '/dev/vda', type: 'b', major: 254, minor: 0, fileMode: 0o660, uid: 0, gid: 6 },
  ],
};

/** A host like a container itself: cgroup v1, one capability less, a floor under oom_score_adj. */
export const CRAMPED_HOST: HostFacts = {
  ...HOST,
  cgroupVersion: 'v1',
  cgroupDriver: 'cgroupfs',
  capabilities: CAPABILITIES.filter((name) => name !== 'CAP_SYS_RESOURCE'),
  oomScoreAdjFloor: 0,
  swapAccounting: false,
  hugetlb: false,
};

const IMAGE: ImageConfig = {
  architecture: 'amd64',
  os: 'linux',
  config: { Env: ['PATH=/usr/bin:/bin', 'FROM_IMAGE=yes'], Cmd: ['sh'] },
  rootfs: { diff_ids: [] },
};

const PASSWD = `root:x:0:0:root:/root:/bin/sh
web:x:1000:1001::/home/web:/bin/sh
7:x:70:71::/:/bin/sh
a line that is none
huge:x:99999999999:1::/:/bin/sh
`;
const GROUP = `root:x:0:root
wheel:x:10:root,web
web:x:1001:web
media:x:50000:web
broken:x:fifty:web
`;

export interface CaseInput {
  readonly container?: Parameters<typeof ContainerConfig.fromPartial>[0];
  readonly security?: Parameters<typeof LinuxContainerSecurityContext.fromPartial>[0];
  readonly sandbox?: Parameters<typeof PodSandboxConfig.fromPartial>[0];
  readonly image?: ImageConfig['config'];
  readonly host?: Partial<HostFacts>;
  readonly namespaces?: Partial<SpecInput['namespaces']>;
  readonly localhostSeccomp?: string;
  readonly unmapped?: boolean;
}

const MAPPING = { containerId: 0, hostId: 100000, length: 65536 };

/** An input that is valid but for what the case changes. */
export function specInput(given: CaseInput = {}): SpecInput {
  const container = ContainerConfig.fromPartial({
    metadata: { name: 'web' },
    image: { image: 'sha256:0123', userSpecifiedImage: 'registry.example/web:1' },
    ...given.container,
    linux: { ...given.container?.linux, securityContext: given.security ?? {} },
  });
  const sandbox = PodSandboxConfig.fromPartial({
    metadata: { name: 'pod', uid: 'uid-1', namespace: 'default' },
    hostname: 'pod',
    linux: { securityContext: { privileged: given.security?.privileged ?? false } },
    ...given.sandbox,
  });
  return {
    ...inputOf(container, sandbox, { ...HOST, ...given.host }),
    image: { ...IMAGE, config: { ...IMAGE.config, ...given.image } },
    namespaces: { ...POD_NAMESPACES, ...given.namespaces },
    uidMappings: given.unmapped === true ? [] : [MAPPING],
    gidMappings: given.unmapped === true ? [] : [MAPPING],
    ...(given.localhostSeccomp === undefined ? {} : { localhostSeccomp: given.localhostSeccomp }),
  };
}

export const POD_NAMESPACES: SpecInput['namespaces'] = {
  network: '/run/pins/net',
  ipc: '/run/pins/ipc',
  uts: '/run/pins/uts',
  pid: 'own',
};

function inputOf(
  container: ContainerConfig,
  sandbox: PodSandboxConfig,
  host: HostFacts,
): SpecInput {
  return {
    containerId: 'c0ffee',
    sandboxId: '5a5d',
    container,
    sandbox,
    image: IMAGE,
    rootfs: '/run/containers/c0ffee/rootfs',
    namespaces: POD_NAMESPACES,
    mounts: container.mounts.map((mount) => ({
      mount,
      source: mount.image === undefined ? mount.hostPath : '/run/containers/c0ffee/images/0',
      sourceIsDirectory: true,
    })),
    sandboxFiles: {
      resolvConf: '/state/5a5d/resolv.conf',
      hostname: '/state/5a5d/hostname',
      shm: '/run/5a5d/shm',
    },
    passwd: PASSWD,
    group: GROUP,
    host,
    cgroupsPath: '/kubepods/pod-uid-1/c0ffee',
    annotations: {},
  };
}

const fileOf = (folder: string, name: string) => new URL(`./${folder}/${name}`, import.meta.url);

/** By NamespaceMode: POD, CONTAINER, NODE, TARGET. */
const PID_NAMESPACES = {
  0: '/proc/4711/ns/pid',
  1: 'own',
  2: 'host',
  3: '/proc/4712/ns/pid',
} as const;

/** The input that a kubelet's recorded CreateContainer leads to. */
export function recordedContainer(name: string, host: HostFacts): SpecInput {
  const recorded = JSON.parse(readFileSync(fileOf('fixtures', name), 'utf8'));
  const request = CreateContainerRequest.fromJSON(recorded.req);
  assert.ok(request.config !== undefined && request.sandboxConfig !== undefined, name);
  const base = inputOf(request.config, request.sandboxConfig, host);
  const spaces = request.config.linux?.securityContext?.namespaceOptions;
  const users = spaces?.usernsOptions;
  return {
    ...base,
    namespaces: {
      network: spaces?.network === 2 ? 'host' : POD_NAMESPACES.network,
      ipc: spaces?.ipc === 2 ? 'host' : POD_NAMESPACES.ipc,
      uts: spaces?.network === 2 ? 'host' : POD_NAMESPACES.uts,
      pid: PID_NAMESPACES[spaces?.pid ?? 0],
      ...(users?.mode === 0 && users.uids.length > 0 ? { user: '/run/pins/user' } : {}),
    },
    hostname: request.sandboxConfig.hostname || 'node',
    ...(users === undefined ? {} : { uidMappings: users.uids, gidMappings: users.gids }),
    localhostSeccomp: JSON.stringify({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_ERRNO' }],
    }),
  };
}

/** The sandbox configuration of a kubelet's recorded RunPodSandbox. */
export function recordedSandbox(name: string): PodSandboxConfig {
  const recorded = JSON.parse(readFileSync(fileOf('fixtures', name), 'utf8'));
  const config = RunPodSandboxRequest.fromJSON(recorded.req).config;
  assert.ok(config !== undefined, name);
  return config;
}

/** Runs a table through the builder and keeps of each result what the table is about. */
export function table(
  name: string,
  cases: Readonly<Record<string, CaseInput>>,
  keep: (built: ReturnType<typeof buildContainerSpec>) => unknown,
): void {
  const results = Object.entries(cases).map(([title, given]) => [
    title,
    outcome(() => keep(buildContainerSpec(specInput(given)))),
  ]);
  check(name, Object.fromEntries(results));
}

/** A device of a request. */
export function device(hostPath: string, containerPath: string, permissions: string): Device {
  return { hostPath, containerPath, permissions };
}

/** What a case gives, or the failure that it ends in, as `kind: message`. */
export function outcome(build: () => unknown): unknown {
  try {
    return build();
  } catch (error) {
    if (isFailure(error)) return `${error.kind}: ${error.message}`;
    throw error;
  }
}

/**
 * Compares a value with golden/<name>.json. With UPDATE_GOLDEN=1 the file is written instead: read
 * the difference before committing it.
 */
export function check(name: string, actual: unknown): void {
  const file = fileOf('golden', `${name}.json`);
  const plain = JSON.stringify(actual, (_key, value) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  const text = `${pretty(JSON.parse(plain))}\n`;
  if (process.env['UPDATE_GOLDEN'] === '1') {
    mkdirSync(fileOf('golden', ''), { recursive: true });
    writeFileSync(file, text);
  }
  assert.equal(text, readFileSync(file, 'utf8'), `golden/${name}.json`);
}

/** JSON with what fits on a line on one line. */
function pretty(value: unknown, indent = ''): string {
  const flat = JSON.stringify(value);
  if (flat.length + indent.length <= 100 || typeof value !== 'object' || value === null)
    return flat;
  const deeper = `${indent}  `;
  const items = Array.isArray(value)
    ? value.map((item) => `${deeper}${pretty(item, deeper)}`)
    : Object.entries(value).map(
        ([key, item]) => `${deeper}${JSON.stringify(key)}: ${pretty(item, deeper)}`,
      );
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  return `${open}\n${items.join(',\n')}\n${indent}${close}`;
}
