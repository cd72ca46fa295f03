// The device nodes of a container and which devices its cgroup lets it use.

import { posix } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Device } from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { SpecDevice, SpecDeviceRule, SpecMount } from './spec.ts';
import type { HostDevice, ResolvedDevice, SpecInput } from './spec-input.ts';

/**
 * What every container may use (Documentation/admin-guide/devices.txt): null, zero, full, random,
 * urandom, tty, console, ptmx and the slaves of its own devpts. The engine makes the nodes.
 */
const STANDARD_RULES: readonly SpecDeviceRule[] = [
  { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 5, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 7, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 8, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 9, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 0, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 1, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 2, access: 'rwm' },
  { allow: true, type: 'c', major: 136, access: 'rwm' },
];

/** Everything is denied but the standard devices. */
export const DEFAULT_DEVICE_RULES: readonly SpecDeviceRule[] = [
  { allow: false, access: 'rwm' },
  ...STANDARD_RULES,
];

/** Paths that the engine or our own mounts provide, where the host's would be in the way. */
const ENGINE_DEVICE = /^\/dev\/(?:console|ptmx|(?:pts|shm|mqueue|fd)(?:\/.*)?)$/;

export interface BuiltDevices {
  readonly devices: readonly SpecDevice[];
  /** Nodes of the host that the engine can't make at another place, as mounts. */
  readonly binds: readonly SpecMount[];
  readonly rules: readonly SpecDeviceRule[];
}

/**
 * The request's devices, each allowed as asked; all of the host's for a privileged container. Raises
 * invalid_argument, or unsupported for a device that the handler can't give.
 */
export function buildDevices(input: SpecInput, invalid: Invalid): BuiltDevices {
  const privileged = input.container.linux?.securityContext?.privileged ?? false;
  const nodes = new Map<string, SpecDevice>();
  const binds: SpecMount[] = [];
  const rules: SpecDeviceRule[] = [];
  const { devicePaths } = input.host;
  if (privileged && devicePaths === undefined) {
    for (const node of input.host.devices) {
      if (!ENGINE_DEVICE.test(node.path)) nodes.set(node.path, { ...node });
    }
  }
  for (const { device, source, nodes: found } of resolveDevices(input, invalid)) {
    const field = `devices[${quoted(device.hostPath)}]`;
    const target = device.containerPath === '' ? device.hostPath : device.containerPath;
    if (!target.startsWith('/')) throw invalid(field, 'container_path is not absolute');
    const access = checkedAccess(device, field, invalid);
    for (const node of found) {
      const path = posix.join(target, posix.relative(source, node.path));
      if (devicePaths !== undefined && !(devicePaths.includes(path) && node.path === path)) {
        const why = `containers of this handler can have no ${quoted(path)}`;
        throw new Failure('unsupported', invalid(field, why).message);
      }
      if (input.namespaces.user !== undefined && path !== node.path) {
        binds.push(deviceBind(path, node.path));
      } else nodes.set(path, { ...node, path });
      if (node.type === 'p') continue;
      rules.push({ allow: true, type: node.type, major: node.major, minor: node.minor, access });
    }
  }
  return {
    devices: [...nodes.values()],
    binds,
    rules: privileged ? [{ allow: true, access: 'rwm' }] : [...DEFAULT_DEVICE_RULES, ...rules],
  };
}

/**
 * In a user namespace mknod(2) is refused, and engines bind the host's node of the same path instead
 * (libcontainer, bindMountDeviceNode). So one of another path is bound by us.
 */
export function deviceBind(destination: string, source: string): SpecMount {
  return { destination, type: 'bind', source, options: ['bind', 'rprivate', 'nosuid', 'noexec'] };
}

function resolveDevices(input: SpecInput, invalid: Invalid): readonly ResolvedDevice[] {
  if (input.devices !== undefined) return input.devices;
  return input.container.devices.map((device) => {
    const source = posix.resolve('/', device.hostPath);
    const below = (node: HostDevice) => node.path === source || node.path.startsWith(`${source}/`);
    const nodes = input.host.devices.filter(below);
    if (nodes.length > 0) return { device, source, nodes };
    throw invalid(`devices[${quoted(device.hostPath)}]`, 'this host has no such device');
  });
}

/** api.proto, Device.permissions: letters of r, w and m; we take none for all. */
function checkedAccess(device: Device, field: string, invalid: Invalid): string {
  if (device.permissions === '') return 'rwm';
  if (/^[rwm]{1,3}$/.test(device.permissions)) return device.permissions;
  throw invalid(field, `permissions ${quoted(device.permissions)} are not of the letters r, w, m`);
}
