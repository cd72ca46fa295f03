// The verbose half of a sandbox's status; without an id, of the network.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { isNamespacePin } from '@cribus/host/namespaces.ts';
import { isAlive } from '@cribus/host/processes.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';
import { sandboxInfo } from '../sandbox-info.ts';

export function describe(deps: SandboxDeps): VerbHandler<'describe'> {
  return async (request) => {
    if (request.id === '') return { info: networkInfo(deps) };
    const record = deps.store.get(request.id);
    if (record === undefined) throw new Failure('not_found', `there is no sandbox ${request.id}`);
    const { handlers } = deps.service.config.runtimes;
    const info = sandboxInfo(record, {
      family: handlers[record.handler]?.family ?? '',
      processAlive: record.process !== undefined && isAlive(record.process),
      netnsPinned: isNamespacePin(record.namespaces?.net ?? ''),
    });
    return { info: { info: JSON.stringify(info) } };
  };
}

function networkInfo(deps: SandboxDeps): Record<string, string> {
  const { ready, message } = deps.network.readiness();
  const { conf_dir, bin_dirs } = deps.service.config.cni;
  const network = { ready, message, confDir: conf_dir, binDirs: bin_dirs };
  return { network: JSON.stringify(network), lastCNILoadStatus: ready ? 'OK' : message };
}
