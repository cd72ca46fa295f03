// PortForward: answers where connections into a sandbox can be had.

import { Failure } from '@cribus/contracts/failure.ts';
import { type PortForwardRequest, PortForwardResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SandboxPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireSandbox } from './lookup.ts';

const PORT_MAX = 65_535;
/** As many as a WebSocket has channels for, two each (streaming/websocket/forward-client.ts). */
const PORTS_MAX = 127;

export function portForward(gateway: Gateway): Verb<PortForwardRequest, PortForwardResponse> {
  return async (request, call) => {
    const ports = request.port;
    const wrong = ports.find((port) => port < 1 || port > PORT_MAX);
    if (wrong !== undefined) {
      throw new Failure('invalid_argument', `port ${wrong}: must be 1 to ${PORT_MAX}`);
    }
    if (ports.length > PORTS_MAX) {
      throw new Failure('invalid_argument', `${ports.length} ports; at most ${PORTS_MAX}`);
    }
    const sandbox = requireSandbox(gateway, request.podSandboxId);
    if (sandbox.phase !== SandboxPhase.READY) {
      throw new Failure('wrong_state', `sandbox "${sandbox.id}" is not ready`);
    }
    const { requestId } = call;
    return PortForwardResponse.fromPartial({
      url: gateway.streamUrl({ kind: 'port-forward', requestId, sandboxId: sandbox.id, ports }),
    });
  };
}
