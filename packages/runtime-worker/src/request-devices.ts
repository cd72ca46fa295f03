// The device nodes of a CreateContainer request, looked up on the host before the spec.

import { realpathSync } from 'node:fs';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Device } from '@cribus/contracts/gen/cri/v1/api.ts';
import { listDevices } from '@cribus/host/devices.ts';
import { isErrno } from '@cribus/host/errno.ts';
import type { HostDevice, ResolvedDevice } from '@cribus/oci/spec-input.ts';
import { hostDevice } from './host-facts.ts';

/** Beyond this a request is a mistake; the kubelet's device plugins name a few. */
const DEVICES_MAX = 1024;

/**
 * Finds each device, or all in a directory; a symlink is followed to what it names. Raises
 * invalid_argument for a path that is neither, and limit.
 */
export function resolveDevices(containerId: string, devices: readonly Device[]): ResolvedDevice[] {
  if (devices.length > DEVICES_MAX) {
    throw new Failure('limit', `${devices.length} devices are over the maximum of ${DEVICES_MAX}`);
  }
  return devices.map((device) => {
    const refused = (why: string, cause?: unknown) =>
      new Failure(
        'invalid_argument',
        `container ${containerId}: device ${JSON.stringify(device.hostPath)} ${why}`,
        { cause },
      );
    if (!device.hostPath.startsWith('/')) throw refused('is not an absolute path');
    try {
      const source = realpathSync(device.hostPath);
      const nodes: HostDevice[] = listDevices(source).map(hostDevice);
      if (nodes.length === 0) throw refused('holds no device of this host');
      return { device, source, nodes };
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ELOOP')) throw refused('does not exist', error);
      if (isErrno(error, 'ENOTDIR')) throw refused('is no device of this host', error);
      throw error;
    }
  });
}
