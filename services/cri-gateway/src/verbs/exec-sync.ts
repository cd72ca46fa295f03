// ExecSync: the worker prepares a session, and the command runs while its output is collected here.

import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { ExecSyncRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ExecSyncResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { collectSession } from '../streaming/collect-session.ts';
import { requireContainer } from './lookup.ts';

export function execSync(gateway: Gateway): Verb<ExecSyncRequest, ExecSyncResponse> {
  return async (request, call) => {
    if (request.cmd.length === 0) throw new Failure('invalid_argument', 'cmd is empty');
    if (request.timeout < 0n) {
      throw new Failure('invalid_argument', `timeout is ${request.timeout}; it can't be negative`);
    }
    const { id: containerId, handler } = requireContainer(gateway, request.containerId);
    const session = await call
      .ask(
        'exec-sync',
        { containerId, cmd: request.cmd, timeoutS: request.timeout },
        { owner: runtimeOwner(handler) },
      )
      .catch((error: unknown) => {
        // The kubelet takes DEADLINE_EXCEEDED for the command's: a probe that failed for being slow. Here
        // nothing was executed yet.
        if (!isFailure(error, 'timeout') || call.signal.aborted) throw error;
        throw new Failure('unavailable', error.message, { cause: error });
      });
    const output = await collectSession({
      session,
      signal: call.signal,
      what: `exec in container "${containerId}"`,
    });
    if (output.droppedBytes > 0 || output.truncatedByOwner) {
      call.log.info(
        { container_id: containerId, dropped_bytes: output.droppedBytes },
        'the output of a command was cut at its maximum',
      );
    }
    return ExecSyncResponse.fromPartial(output);
  };
}
