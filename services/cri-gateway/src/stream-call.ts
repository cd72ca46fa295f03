// The wrapper around every verb that answers with a stream: what the one for single answers does, and
// back-pressure: the next message is asked for when the caller's window has taken the last.

import { Failure } from '@cribus/contracts/failure.ts';
import { joinSignals } from '@cribus/host/joined-signals.ts';
import { Metadata, type ServerWritableStream } from '@grpc/grpc-js';
import { callsOf, type Wrapping } from './call.ts';
import type { StreamCall, StreamVerb } from './gateway.ts';

/** A server-streaming handler for grpc-js around one verb. */
export function wrapStream<Request extends object, Message>(
  name: string,
  options: Wrapping & {
    readonly stream: StreamVerb<Request, Message>;
    /** Never ends of itself, so that it is ended first when the service ends. */
    readonly endless: boolean;
  },
): (call: ServerWritableStream<Request, Message>) => void {
  const begin = callsOf(name, { ...options, mutates: false });
  return (call) => {
    const { context, inSpan, end } = begin(
      call,
      options.endless ? options.leaving : options.stopping,
    );
    const cutting = new AbortController();
    const { signal, release } = joinSignals([context.signal, cutting.signal]);
    const streamCall: StreamCall = {
      ...context,
      signal,
      cut: (failure) => cutting.abort(failure),
    };
    const work = async (): Promise<void> => {
      // An endless one tells its caller that it is heard before there is a message to send.
      if (options.endless) call.sendMetadata(new Metadata());
      for await (const message of options.stream(call.request, streamCall)) {
        await write(call, message, signal);
      }
    };
    inSpan(work)
      .finally(release)
      .then(
        () => {
          end();
          call.end();
        },
        (error: unknown) => {
          const status = end(error);
          // Whoever is gone needs no status, and grpc-js takes none for it any more.
          if (!call.cancelled) call.emit('error', { ...status, metadata: new Metadata() });
        },
      );
  };
}

/** Resolves when the message is on its way to the caller; rejects with the reason of the signal. */
function write<Message>(
  call: ServerWritableStream<object, Message>,
  message: Message,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    call.write(message, (error?: Error | null) => {
      signal.removeEventListener('abort', onAbort);
      if (error == null) resolve();
      else reject(new Failure('cancelled', `the answer could not be sent: ${error.message}`));
    });
  });
}
