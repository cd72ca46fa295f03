// The user namespace that a RunPodSandbox request asks for: its mappings, or why they are wrong.

import { Failure } from '@cribus/contracts/failure.ts';
import {
  type IDMapping,
  NamespaceMode,
  type NamespaceOption,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { IdMappings } from '@cribus/host/user-namespaces.ts';

/** One past the last id: 4294967295 is none, it says "leave as it is" to setresuid(2). */
const IDS_END = 4_294_967_295;

/**
 * The mappings; undefined for a pod in the host's user namespace. CRI (UserNamespace) allows the modes
 * POD and NODE, and exactly one mapping each. Raises invalid_argument.
 */
export function planUserNamespace(
  options: NamespaceOption | undefined,
  pod: string,
): IdMappings | undefined {
  const user = options?.usernsOptions;
  if (user === undefined) return undefined;
  if (user.mode !== NamespaceMode.POD && user.mode !== NamespaceMode.NODE) {
    throw invalid(`${pod}: userns_options.mode must be POD or NODE`);
  }
  if (user.mode === NamespaceMode.NODE) {
    if (user.uids.length + user.gids.length === 0) return undefined;
    throw invalid(`${pod}: userns_options has mappings, but its mode is NODE`);
  }
  // A new /proc shows the process ids of its mounter, and only the user namespace that they belong to
  // may mount it.
  if (options?.pid === NamespaceMode.NODE) {
    throw invalid(`${pod}: a pod with a user namespace can't have the host's process ids`);
  }
  return { uids: [mapping(user.uids, 'uids', pod)], gids: [mapping(user.gids, 'gids', pod)] };
}

function mapping(mappings: readonly IDMapping[], field: 'uids' | 'gids', pod: string): IDMapping {
  const where = `${pod}: userns_options.${field}`;
  const [only, ...others] = mappings;
  if (only === undefined || others.length > 0) {
    throw invalid(`${where} must hold exactly one mapping, not ${mappings.length}`);
  }
  const { containerId, hostId, length } = only;
  if (length === 0) throw invalid(`${where}: a mapping of length 0`);
  if (containerId !== 0) throw invalid(`${where} must map container id 0, not from ${containerId}`);
  // Whoever is root in there would own the host's own files.
  if (hostId === 0) throw invalid(`${where} must not map container id 0 to the host's root`);
  if (hostId + length > IDS_END) {
    throw invalid(`${where}: ${length} ids from host id ${hostId} on end beyond ${IDS_END - 1}`);
  }
  return only;
}

function invalid(message: string): Failure {
  return new Failure('invalid_argument', message);
}
