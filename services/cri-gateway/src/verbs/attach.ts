// Attach: answers where the streams of a container's own process can be had.

import { type AttachRequest, AttachResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { checkStreams, requireRunning } from './streamed-container.ts';

export function attach(gateway: Gateway): Verb<AttachRequest, AttachResponse> {
  return async (request, call) => {
    checkStreams(request);
    const { id: containerId, handler } = requireRunning(gateway, request.containerId);
    const { tty, stdin, stdout, stderr } = request;
    const { requestId } = call;
    const streams = { tty, stdin, stdout, stderr };
    return AttachResponse.fromPartial({
      url: gateway.streamUrl({
        kind: 'attach',
        requestId,
        containerId,
        handler,
        cmd: [],
        ...streams,
      }),
    });
  };
}
