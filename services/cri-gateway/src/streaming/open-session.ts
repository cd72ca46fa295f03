// Asking the worker for the session of a stream, once its client is there.

import { failureOfAbort } from '@cribus/chassis/abort.ts';
import type { Bus } from '@cribus/chassis/bus.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { type OwnerName, type RequestOf, runtimeOwner, VERBS } from '@cribus/contracts/subjects.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { Gateway } from '../gateway.ts';
import type { CommandAsk, ForwardAsk } from './ask.ts';

export interface Sessions {
  command(ask: CommandAsk, signal: AbortSignal): Promise<Session>;
  /** One connection to a port of the sandbox as it is now; raises not_found when that is gone. */
  forward(ask: ForwardAsk, port: number, signal: AbortSignal): Promise<Session>;
}

type SessionVerb = 'exec' | 'attach' | 'port-forward';

/** Sessions of the workers on the bus. Raises what they raise, and unavailable for an absent one. */
export function createSessions(
  gateway: Pick<Gateway, 'view' | 'owners' | 'clock'>,
  bus: Bus,
): Sessions {
  const open = async <V extends SessionVerb>(
    verb: V,
    request: RequestOf<V>,
    options: { owner: OwnerName; requestId: string; signal: AbortSignal },
  ): Promise<Session> => {
    const { owner, requestId } = options;
    gateway.owners.requireAlive(owner);
    const limits = [options.signal, gateway.clock.timeout(VERBS[verb].budgetMs)];
    return await withJoinedSignal(limits, async (signal) => {
      try {
        const { result } = await bus.ask(verb, request, { owner, requestId, signal });
        return result;
      } catch (error) {
        throw signal.aborted && !isFailure(error)
          ? failureOfAbort(signal, `${owner}: ${verb}`)
          : error;
      }
    });
  };
  return {
    command({ kind, containerId, handler, requestId, ...streams }, signal) {
      const { cmd, tty, stdin, stdout, stderr } = streams;
      const options = { owner: runtimeOwner(handler), requestId, signal };
      const attach = { containerId, tty, stdin, stdout, stderr };
      return kind === 'attach'
        ? open('attach', attach, options)
        : open('exec', { ...attach, cmd: [...cmd] }, options);
    },
    async forward({ sandboxId, requestId }, port, signal) {
      const sandbox = gateway.view.sandbox(sandboxId);
      if (sandbox === undefined) {
        throw new Failure('not_found', `sandbox "${sandboxId}" does not exist any more`);
      }
      const owner = runtimeOwner(sandbox.handler);
      return open('port-forward', { sandbox, port }, { owner, requestId, signal });
    },
  };
}
