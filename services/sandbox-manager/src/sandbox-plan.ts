// From a RunPodSandbox request to what has to be done for it: checks and decisions, no effects.

import { isIP } from 'node:net';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  type DNSConfig,
  type LinuxPodSandboxConfig,
  type LinuxSandboxSecurityContext,
  NamespaceMode,
  type NamespaceOption,
  type PodSandboxConfig,
  type PodSandboxMetadata,
  Protocol,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { RunPodSandboxRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { isSliceName } from '@cribus/host/cgroup-slices.ts';
import type { IdMappings } from '@cribus/host/user-namespaces.ts';
import { podCgroup } from './pod-cgroup.ts';
import { planSysctls, type SysctlPlan } from './sysctls.ts';
import { planUserNamespace } from './user-namespace.ts';

export interface SandboxPlan {
  readonly config: PodSandboxConfig;
  readonly handler: string;
  readonly requestedHandler: string;
  /** One sandbox at most has it: namespace, name, uid and attempt. */
  readonly key: string;
  readonly hostNetwork: boolean;
  readonly hostIpc: boolean;
  /** Undefined: the host's. */
  readonly userNamespace: IdMappings | undefined;
  /** Wanted in the pod's own UTS namespace; empty: the host's name. */
  readonly hostname: string;
  readonly sysctls: SysctlPlan;
  /** As the OCI runtime gets it, absolute below the hierarchy; undefined: not ours to make. */
  readonly cgroup: string | undefined;
}

export interface PlanFacts {
  readonly handlers: readonly string[];
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
}

/** Linux's __NEW_UTS_LEN (uts(7): uname(2), sethostname(2)). */
const HOSTNAME_BYTES_MAX = 64;
/** A name, uid or namespace longer than this is no Kubernetes object's (RFC 1123 subdomain: 253). */
const METADATA_CHARS_MAX = 253;

/** Raises invalid_argument, or unsupported for what CRI has and this stack has not yet. */
export function planSandbox(request: RunPodSandboxRequest, facts: PlanFacts): SandboxPlan {
  const { config, handler } = request;
  if (config === undefined) throw invalid('config is missing');
  if (!facts.handlers.includes(handler)) {
    throw invalid(`runtime handler "${handler}" is not configured; there are ${facts.handlers}`);
  }
  const metadata = checkMetadata(config.metadata);
  const pod = `pod ${metadata.namespace}/${metadata.name}`;
  const namespaces = checkNamespaces(config.linux?.securityContext?.namespaceOptions, pod);
  checkGroup(config.linux?.securityContext, pod);
  checkHostname(config.hostname, pod);
  if (config.logDirectory !== '' && !isCleanPath(config.logDirectory)) {
    throw invalid(`${pod}: log_directory "${config.logDirectory}" must be an absolute path`);
  }
  checkDns(config.dnsConfig, pod);
  if (!namespaces.hostNetwork) checkPortMappings(config, pod);
  return {
    config,
    handler,
    requestedHandler: request.requestedHandler,
    key: sandboxKey(metadata),
    ...namespaces,
    hostname: config.hostname,
    sysctls: planSysctls(config.linux?.sysctls ?? {}, { ...namespaces, pod }),
    cgroup: cgroupOf(config.linux, facts, pod),
  };
}

/** The key under which a sandbox is reserved (CRI: the metadata is unique with its attempt). */
export function sandboxKey(metadata: PodSandboxMetadata | undefined): string {
  const { namespace = '', name = '', uid = '', attempt = 0 } = metadata ?? {};
  return JSON.stringify([namespace, name, uid, attempt]);
}

function checkMetadata(metadata: PodSandboxMetadata | undefined): PodSandboxMetadata {
  if (metadata === undefined) throw invalid('metadata is missing');
  for (const field of ['name', 'uid', 'namespace'] as const) {
    const value = metadata[field];
    if (value === '') throw invalid(`metadata.${field} is missing`);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused.
    if (value.length > METADATA_CHARS_MAX || /[\x00-\x1f\x7f]/.test(value)) {
      throw invalid(
        `metadata.${field} must be at most ${METADATA_CHARS_MAX} characters, none of them a control`,
      );
    }
  }
  return metadata;
}

function checkNamespaces(
  options: NamespaceOption | undefined,
  pod: string,
): Pick<SandboxPlan, 'hostNetwork' | 'hostIpc' | 'userNamespace'> {
  const network = options?.network ?? NamespaceMode.POD;
  const ipc = options?.ipc ?? NamespaceMode.POD;
  const pid = options?.pid ?? NamespaceMode.POD;
  for (const [name, mode] of Object.entries({ network, ipc })) {
    if (mode !== NamespaceMode.POD && mode !== NamespaceMode.NODE) {
      throw invalid(`${pod}: namespace_options.${name} of a sandbox must be POD or NODE`);
    }
  }
  if (pid === NamespaceMode.TARGET) {
    throw invalid(`${pod}: namespace_options.pid TARGET is for containers only`);
  }
  return {
    hostNetwork: network === NamespaceMode.NODE,
    hostIpc: ipc === NamespaceMode.NODE,
    userNamespace: planUserNamespace(options, pod),
  };
}

/** As for a container (api.proto, run_as_group): a group alone would leave open whose it is. */
function checkGroup(security: LinuxSandboxSecurityContext | undefined, pod: string): void {
  if (security?.runAsGroup === undefined || security.runAsUser !== undefined) return;
  const { value } = security.runAsGroup;
  throw invalid(`${pod}: run_as_group: group ${value} is given without run_as_user`);
}

function checkHostname(hostname: string, pod: string): void {
  if (Buffer.byteLength(hostname) > HOSTNAME_BYTES_MAX) {
    throw invalid(`${pod}: hostname "${hostname}" is longer than ${HOSTNAME_BYTES_MAX} bytes`);
  }
  if (/[\s\0/]/.test(hostname)) {
    throw invalid(`${pod}: hostname "${hostname}" holds a space or a slash`);
  }
}

/** The entries become lines of resolv.conf: none may hold a line break of its own. */
function checkDns(dns: DNSConfig | undefined, pod: string): void {
  for (const field of ['servers', 'searches', 'options'] as const) {
    for (const entry of dns?.[field] ?? []) {
      if (entry === '' || /[\s\0]/.test(entry)) {
        throw invalid(
          `${pod}: dns_config.${field} has "${entry}", which is empty or holds a space`,
        );
      }
    }
  }
}

function checkPortMappings(config: PodSandboxConfig, pod: string): void {
  const taken = new Set<string>();
  for (const mapping of config.portMappings) {
    const { containerPort, hostPort, hostIp, protocol } = mapping;
    const where = `${pod}: port mapping ${hostPort}:${containerPort}`;
    if (!Object.values(Protocol).includes(protocol)) throw invalid(`${where}: unknown protocol`);
    if (!(hostPort >= 0 && hostPort <= 65_535)) throw invalid(`${where}: no such host port`);
    if (!(containerPort >= 1 && containerPort <= 65_535)) {
      throw invalid(`${where}: no such container port`);
    }
    if (hostIp !== '' && isIP(hostIp) === 0) throw invalid(`${where}: "${hostIp}" is no address`);
    const key = `${protocol} ${hostIp} ${hostPort}`;
    if (hostPort > 0 && taken.has(key)) throw invalid(`${where}: the host port is mapped twice`);
    taken.add(key);
  }
}

function cgroupOf(
  linux: LinuxPodSandboxConfig | undefined,
  facts: PlanFacts,
  pod: string,
): string | undefined {
  const parent = linux?.cgroupParent ?? '';
  if (parent.split('/').includes('..') || parent.includes('\0')) {
    throw invalid(`${pod}: cgroup_parent "${parent}" must not go up`);
  }
  const slice = parent.split('/').at(-1) ?? '';
  if (facts.cgroupDriver === 'systemd' && parent !== '' && !isSliceName(slice)) {
    throw invalid(
      `${pod}: cgroup_parent "${parent}" must be a slice: the cgroup driver is systemd`,
    );
  }
  return podCgroup(parent, facts.cgroupDriver);
}

function isCleanPath(path: string): boolean {
  return path.startsWith('/') && !path.includes('\0') && !path.split('/').includes('..');
}

function invalid(message: string): Failure {
  return new Failure('invalid_argument', message);
}
