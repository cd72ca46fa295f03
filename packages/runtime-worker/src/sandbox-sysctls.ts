// Sysctls of a pod under a handler that has a kernel of its own.

import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/**
 * They are set in the pod's namespaces on the host, which the containers of a Sentry don't see; only
 * where it passes sockets to the host's kernel do those of the network count. Raises unsupported.
 */
export function refuseSysctls(worker: Worker, sysctls: Readonly<Record<string, string>>): void {
  const { sandboxModel, details } = worker.driver;
  if (sandboxModel !== 'root-container') return;
  const useless = Object.keys(sysctls).filter(
    (name) => !/^net[./]/.test(name) || details['network'] !== 'host',
  );
  if (useless.length === 0) return;
  throw new Failure(
    'unsupported',
    `handler ${worker.handler} can't set ${useless.join(', ')}: its containers have a kernel of their own`,
  );
}
