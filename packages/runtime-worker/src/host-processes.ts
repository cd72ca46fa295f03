// What a pod asks of the host's processes, and a handler that isolates them can't give.

import { Failure } from '@cribus/contracts/failure.ts';
import { NamespaceMode, type NamespaceOption } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Worker } from './worker.ts';

/** Raises unsupported for a namespace of the host's that this handler's containers can't enter. */
export function refuseHostProcesses(worker: Worker, options: NamespaceOption | undefined): void {
  if (worker.driver.features.hostProcesses) return;
  const asked = [
    options?.pid === NamespaceMode.NODE ? 'process ids (hostPID)' : '',
    options?.ipc === NamespaceMode.NODE ? 'IPC (hostIPC)' : '',
  ].filter((name) => name !== '');
  if (asked.length === 0) return;
  throw new Failure(
    'unsupported',
    `handler ${worker.handler} can't give a pod the host's ${asked.join(' and ')}: it isolates them`,
  );
}
