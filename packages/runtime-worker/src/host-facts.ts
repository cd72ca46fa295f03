// Facts of this host that decide what can be asked of an engine.

import { existsSync, readFileSync } from 'node:fs';
import { boundingCapabilities, oomScoreAdjFloor } from '@cribus/host/capabilities.ts';
import type { CgroupHost } from '@cribus/host/cgroups.ts';
import { type DeviceNode, listDevices } from '@cribus/host/devices.ts';
import { CAPABILITIES } from '@cribus/oci/capabilities.ts';
import type { HostDevice, HostFacts } from '@cribus/oci/spec-input.ts';
import type { RuntimeDriver } from './driver.ts';

/** Everything but the devices, which only some containers need. */
export function readHostFacts(options: {
  readonly cgroups: CgroupHost;
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  readonly driver: RuntimeDriver;
}): HostFacts {
  const { cgroups, driver } = options;
  return {
    cgroupVersion: cgroups.version,
    cgroupDriver: options.cgroupDriver,
    capabilities: boundingCapabilities(CAPABILITIES),
    oomScoreAdjFloor: oomScoreAdjFloor(),
    appArmor: readSwitch('/sys/module/apparmor/parameters/enabled') === 'Y',
    selinux: existsSync('/sys/fs/selinux/enforce'),
    seccomp: existsSync('/proc/sys/kernel/seccomp/actions_avail'),
    ociVersion: driver.ociVersion,
    devices: [],
    swapAccounting:
      cgroups.version === 'v2' || existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    hugetlb: cgroups.controllers.includes('hugetlb'),
    recursiveReadOnlyMounts: driver.features.recursiveReadOnlyMounts,
    resctrl: driver.family === 'runc' && existsSync('/sys/fs/resctrl/schemata'),
    ...driver.restrictions,
  };
}

function readSwitch(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
}

const DEVICE_LETTERS = { char: 'c', block: 'b', fifo: 'p' } as const;

/** Every device node below /dev, as the spec builder wants them. */
export function listHostDevices(): HostDevice[] {
  return listDevices().map(hostDevice);
}

/** A device node as the spec builder wants it. */
export function hostDevice(device: DeviceNode): HostDevice {
  return {
    path: device.path,
    type: DEVICE_LETTERS[device.type],
    major: device.major,
    minor: device.minor,
    fileMode: device.mode,
    uid: device.uid,
    gid: device.gid,
  };
}
