// What CDI devices change in the OCI spec of a container (SPEC.md, "OCI Edits").

import { posix } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { deviceBind } from '../devices.ts';
import type { Invalid } from '../invalid-field.ts';
import type {
  HookName,
  Spec,
  SpecDevice,
  SpecDeviceRule,
  SpecHook,
  SpecIntelRdt,
  SpecMount,
} from '../spec.ts';
import type { HostDevice, HostFacts } from '../spec-input.ts';
import type { CdiDeviceNode, CdiEdits, CdiMount } from './cdi-spec.ts';

/** The edits of a container's CDI devices, and the host's device nodes that they name. */
export interface CdiInput {
  readonly edits: readonly CdiEdits[];
  /** By host path; absent there: the host has no such node. */
  readonly nodes: ReadonlyMap<string, HostDevice>;
}

/** What runc gives a node whose mode nobody knows. */
const DEFAULT_DEVICE_MODE = 0o666;

/** Where on the host a device node's numbers are looked up. */
export function hostPathOf(node: CdiDeviceNode): string {
  return node.hostPath || node.path;
}

/** Whether a mount binds something of the host: one without a type of its own does. */
export function isBind(mount: CdiMount): boolean {
  const bindOption = mount.options.some((option) => option === 'bind' || option === 'rbind');
  return bindOption || ['', 'bind', 'none'].includes(mount.type ?? '');
}

/**
 * Applies all edits, in their order. Raises wrong_state for a device node that this host hasn't,
 * and unsupported for what the handler or the host can't.
 */
export function applyCdiEdits(
  spec: Spec,
  input: CdiInput & { readonly host: HostFacts },
  invalid: Invalid,
): Spec {
  let edited = spec;
  for (const edits of input.edits) {
    refuseUnsupported(edits, input.host, invalid);
    edited = withProcess(edited, edits);
    edited = withNodes(edited, completeNodes(edits, input, edited, invalid));
    edited = withMounts(edited, edits.mounts);
    edited = withHooks(edited, edits);
    if (edits.intelRdt) edited = withIntelRdt(edited, edits.intelRdt);
  }
  return edited;
}

function refuseUnsupported(edits: CdiEdits, host: HostFacts, invalid: Invalid): void {
  const refuse = (why: string) => new Failure('unsupported', invalid('CDI_devices', why).message);
  if (edits.netDevices.length > 0) {
    throw refuse('this handler moves no network devices of the host into a container');
  }
  if (edits.intelRdt && host.resctrl !== true) {
    throw refuse('intelRdt needs the resctrl file system, which is not there for this handler');
  }
  for (const { hookName } of edits.hooks) {
    if (host.hooks === undefined || host.hooks.includes(hookName)) continue;
    throw refuse(`this handler runs no ${hookName} hooks`);
  }
}

/** Environment (each name once, the later wins) and groups. */
function withProcess(spec: Spec, edits: CdiEdits): Spec {
  const env = new Map(
    [...spec.process.env, ...edits.env].map((line) => [line.slice(0, line.indexOf('=')), line]),
  );
  const { user } = spec.process;
  // SPEC.md: values of 0 are ignored.
  const gids = new Set([
    ...(user.additionalGids ?? []),
    ...edits.additionalGids.filter((gid) => gid !== 0),
  ]);
  return {
    ...spec,
    process: {
      ...spec.process,
      env: [...env.values()],
      ...(gids.size === 0 ? {} : { user: { ...user, additionalGids: [...gids] } }),
    },
  };
}

interface CompleteNode {
  readonly device: SpecDevice;
  /** As in the device cgroup; empty: none. */
  readonly access: string;
  /** Where the host's node is, if the engine can only bind it. */
  readonly bindSource?: string;
}

/** What a file leaves out is as it is on the host, the owner as that of the process. */
function completeNodes(
  edits: CdiEdits,
  input: CdiInput & { readonly host: HostFacts },
  spec: Spec,
  invalid: Invalid,
): CompleteNode[] {
  const { user } = spec.process;
  return edits.deviceNodes.map((node) => {
    const hostPath = hostPathOf(node);
    const refused = (why: string) => invalid(`CDI_devices: device node ${node.path}`, why).message;
    const { devicePaths } = input.host;
    if (devicePaths !== undefined && !devicePaths.includes(node.path)) {
      throw new Failure('unsupported', refused('containers of this handler have no such device'));
    }
    const found = input.nodes.get(hostPath);
    const type = node.type === 'u' ? 'c' : (node.type ?? found?.type);
    const told = type === 'p' || (node.type && node.major) ? node : undefined;
    if (type === undefined || (told === undefined && found === undefined)) {
      throw new Failure('wrong_state', refused(`${hostPath} is no device node of this host`));
    }
    if (told === undefined && type !== found?.type) {
      throw new Failure('wrong_state', refused(`${hostPath} has not the type ${node.type}`));
    }
    const access = node.permissions === 'none' ? '' : node.permissions || 'rwm';
    const inUserNamespace = spec.linux.namespaces.some(({ type }) => type === 'user');
    if (inUserNamespace && found === undefined) {
      throw new Failure('wrong_state', refused(`${hostPath} can't be made in a user namespace`));
    }
    return {
      ...(inUserNamespace && hostPath !== node.path ? { bindSource: hostPath } : {}),
      device: {
        path: posix.normalize(node.path),
        type,
        major: (told ?? found)?.major ?? 0,
        minor: (told ?? found)?.minor ?? 0,
        fileMode: node.fileMode ?? found?.fileMode ?? DEFAULT_DEVICE_MODE,
        uid: node.uid ?? user.uid,
        gid: node.gid ?? user.gid,
      },
      access: type === 'p' ? '' : access,
    };
  });
}

function withNodes(spec: Spec, nodes: readonly CompleteNode[]): Spec {
  if (nodes.length === 0) return spec;
  const { linux } = spec;
  const made = nodes.filter((node) => node.bindSource === undefined);
  const devices = new Map(
    [...linux.devices, ...made.map((node) => node.device)].map((device) => [device.path, device]),
  );
  const binds = nodes.flatMap(({ device, bindSource }) =>
    bindSource === undefined ? [] : [deviceBind(device.path, bindSource)],
  );
  const rules = nodes.flatMap(({ device, access }): SpecDeviceRule[] =>
    device.type === 'p' || access === ''
      ? []
      : [{ allow: true, type: device.type, major: device.major, minor: device.minor, access }],
  );
  return {
    ...spec,
    mounts: [...spec.mounts, ...binds],
    linux: {
      ...linux,
      devices: [...devices.values()],
      resources: { ...linux.resources, devices: [...linux.resources.devices, ...rules] },
    },
  };
}

/** A mount takes the place of another one there; parents stay before children. */
function withMounts(spec: Spec, mounts: readonly CdiMount[]): Spec {
  if (mounts.length === 0) return spec;
  const all = new Map(spec.mounts.map((mount) => [posix.resolve(mount.destination), mount]));
  for (const mount of mounts) {
    const destination = posix.resolve(mount.containerPath);
    all.delete(destination);
    all.set(destination, specMount(destination, mount));
  }
  const depthOf = (mount: SpecMount) => mount.destination.split('/').length;
  return { ...spec, mounts: [...all.values()].sort((a, b) => depthOf(a) - depthOf(b)) };
}

function specMount(destination: string, mount: CdiMount): SpecMount {
  const options = [...mount.options];
  const bind = isBind(mount);
  if (bind && !options.some((option) => option === 'bind' || option === 'rbind')) {
    options.push('rbind');
  }
  return {
    destination,
    type: bind ? 'bind' : (mount.type ?? ''),
    source: mount.hostPath,
    options,
  };
}

function withHooks(spec: Spec, edits: CdiEdits): Spec {
  if (edits.hooks.length === 0) return spec;
  const hooks: Partial<Record<HookName, readonly SpecHook[]>> = { ...spec.hooks };
  for (const { hookName, path, args, env, timeout } of edits.hooks) {
    const hook: SpecHook = {
      path,
      ...(args.length === 0 ? {} : { args }),
      ...(env.length === 0 ? {} : { env }),
      ...(timeout ? { timeout } : {}),
    };
    hooks[hookName] = [...(hooks[hookName] ?? []), hook];
  }
  return { ...spec, hooks };
}

function withIntelRdt(spec: Spec, intelRdt: NonNullable<CdiEdits['intelRdt']>): Spec {
  const given = Object.entries(intelRdt).filter(([, value]) => value !== null);
  const settings = Object.fromEntries(given) as SpecIntelRdt;
  return { ...spec, linux: { ...spec.linux, intelRdt: settings } };
}
