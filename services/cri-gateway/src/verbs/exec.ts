// Exec: answers where the streams of a command can be had; it starts when a client comes for them.

import { Failure } from '@cribus/contracts/failure.ts';
import { type ExecRequest, ExecResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { checkStreams, requireRunning } from './streamed-container.ts';

export function exec(gateway: Gateway): Verb<ExecRequest, ExecResponse> {
  return async (request, call) => {
    if (request.cmd.length === 0) throw new Failure('invalid_argument', 'cmd is empty');
    checkStreams(request);
    const { id: containerId, handler } = requireRunning(gateway, request.containerId);
    const { cmd, tty, stdin, stdout, stderr } = request;
    const { requestId } = call;
    const streams = { tty, stdin, stdout, stderr };
    return ExecResponse.fromPartial({
      url: gateway.streamUrl({ kind: 'exec', requestId, containerId, handler, cmd, ...streams }),
    });
  };
}
