// The namespaces of a process: which are its own, which are joined by path, which are the host's.

import type { IDMapping } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Invalid } from './invalid-field.ts';
import type { NamespaceType, SpecIdMapping, SpecNamespace, SpecUser } from './spec.ts';
import type { HostFacts, NamespacePaths } from './spec-input.ts';

export interface NamespaceInput {
  readonly namespaces: NamespacePaths;
  readonly privileged: boolean;
  readonly host: HostFacts;
}

/** Joined ones carry a path, new ones don't, the host's are left out. Mount is always a new one. */
export function buildNamespaces(input: NamespaceInput): SpecNamespace[] {
  const { namespaces } = input;
  const entry = (type: NamespaceType, path: string): SpecNamespace[] => {
    if (path === 'host') return [];
    return path === 'own' ? [{ type }] : [{ type, path }];
  };
  return [
    ...(namespaces.user === undefined ? [] : entry('user', namespaces.user)),
    ...entry('pid', namespaces.pid),
    ...entry('network', namespaces.network),
    ...entry('ipc', namespaces.ipc),
    ...entry('uts', namespaces.uts),
    { type: 'mount' },
    // On cgroup v2 the namespace is what keeps the host's tree out of sight; v1 binds a container's
    // own part of each hierarchy without it.
    ...(input.host.cgroupVersion === 'v2' && !input.privileged ? entry('cgroup', 'own') : []),
  ];
}

export interface IdMappingInput {
  readonly namespaces: NamespacePaths;
  readonly uidMappings?: readonly IDMapping[];
  readonly gidMappings?: readonly IDMapping[];
}

/** The mappings of the user namespace: engines want them even where it is joined by path. */
export function buildIdMappings(input: IdMappingInput, invalid: Invalid) {
  if (input.namespaces.user === undefined) return {};
  const map = (field: string, mappings: readonly IDMapping[] = []): SpecIdMapping[] => {
    if (mappings.length === 0) throw invalid(field, 'a user namespace without mappings');
    return mappings.map(({ containerId, hostId, length }) => {
      if (length === 0) throw invalid(field, 'a mapping of length 0');
      return { containerID: containerId, hostID: hostId, size: length };
    });
  };
  return {
    uidMappings: map('userns_options.uids', input.uidMappings),
    gidMappings: map('userns_options.gids', input.gidMappings),
  };
}

/** An id that a user namespace doesn't map can't be switched to: said here, not by the engine. */
export function checkMapped(user: SpecUser, input: IdMappingInput, invalid: Invalid): void {
  if (input.namespaces.user === undefined) return;
  const check = (field: string, id: number, mappings: readonly IDMapping[] = []): void => {
    const mapped = mappings.some(
      ({ containerId, length }) => id >= containerId && id < containerId + length,
    );
    if (!mapped) throw invalid(field, `id ${id} is not mapped in the pod's user namespace`);
  };
  check('run_as_user', user.uid, input.uidMappings);
  check('run_as_group', user.gid, input.gidMappings);
  for (const gid of user.additionalGids ?? []) {
    check('supplemental_groups', gid, input.gidMappings);
  }
}
