// Joins a client's streams with the session of a worker, until the session ends or the client is gone.
// Whichever side is slow holds up the other: nothing is kept here beyond what sockets keep.

import { Failure } from '@cribus/contracts/failure.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { ClientConnection, ClientStream, ForwardPair } from './client-stream.ts';
import { watchInput } from './quiet-input.ts';
import { createResizeReader } from './resizes.ts';
import { dialSession, type SessionLink, type SessionOutcome } from './session-link.ts';

const NOTHING = Buffer.alloc(0);
const DONE: SessionOutcome = { kind: 'exit', exit: { exitCode: 0 } };

export interface JoinOptions {
  readonly session: Session;
  /** For messages. */
  readonly what: string;
  readonly connection: ClientConnection;
  readonly stdin?: ClientStream | undefined;
  readonly stdout?: ClientStream | undefined;
  readonly stderr?: ClientStream | undefined;
  readonly resize?: ClientStream | undefined;
  /** The forwarded connection whose data this is; absent for a command. */
  readonly forward?: (ForwardPair & { readonly clock: Clock }) | undefined;
  /** Called with every piece, for the counters. */
  readonly count: (direction: 'in' | 'out', bytes: number) => void;
}

/**
 * Carries bytes both ways. Answers how the session ended, or a failure of kind cancelled when the
 * client went first: the worker's socket is closed at once then, so that the process goes too. A
 * forwarded connection is also left by a reset of its data; a command takes one for the end of its input.
 */
export function joinSession(options: JoinOptions): Promise<SessionOutcome> {
  const { session, what, connection, stdin, stdout, stderr, resize, forward, count } = options;
  return new Promise((resolve) => {
    let saidAll = false;
    let over = false;
    const input = forward === undefined ? undefined : watchInput(forward.clock);
    const end = (outcome: SessionOutcome): void => {
      over = true;
      stopDraining();
      connection.closed.removeEventListener('abort', onGone);
      // Held back it would hold up its whole connection: what waits and what still comes is dropped.
      stdin?.resume();
      resolve(outcome);
    };
    const write = (stream: ClientStream | undefined, piece: Buffer): void => {
      if (stream === undefined) return;
      count('out', piece.length);
      if (!stream.write(piece)) link.pause();
    };
    const hangUp = (outcome: SessionOutcome): void => {
      link.destroy();
      end(outcome);
    };
    const onGone = (): void => hangUp(cancelled(`${what}: the client is gone`));
    // From 1.32 on kubectl resets every connection that the pod has ended: that is its proper end.
    const onReset = (): void =>
      hangUp(saidAll ? DONE : cancelled(`${what}: the client gave it up`));
    const link = dialSession({
      session,
      what,
      receiver: {
        stdout: (piece) => write(stdout, piece),
        stderr: (piece) => write(stderr, piece),
        stdoutEnd() {
          saidAll = true;
          stdout?.end();
          void input?.quiet(() => over).then(endForward);
        },
        drain() {
          input?.drained();
          stdin?.resume();
        },
        isHolding: () => connection.isHolding(),
        end,
      },
    });
    const endForward = (): void => {
      if (over) return;
      // A kubectl before 1.32 ends its input only when the errors have ended too.
      forward?.error.end();
      if (forward?.halfCloses === false) link.send(FRAME.stdinEnd, NOTHING);
    };
    const stopDraining = connection.onDrain(() => link.resume());
    if (connection.closed.aborted) {
      onGone();
      return;
    }
    connection.closed.addEventListener('abort', onGone, { once: true });
    if (resize !== undefined) sendSizes(resize, link);
    stdin?.receive({
      data(chunk) {
        if (over) return;
        count('in', chunk.length);
        const isHeld = !link.send(FRAME.stdin, chunk);
        input?.came(isHeld);
        if (isHeld) stdin.pause();
      },
      end: () => link.send(FRAME.stdinEnd, NOTHING),
      reset: forward === undefined ? undefined : onReset,
    });
  });
}

function sendSizes(resize: ClientStream, link: SessionLink): void {
  const data = createResizeReader((size) => {
    link.send(FRAME.resize, Buffer.from(JSON.stringify(size)));
  });
  resize.receive({ data, end: () => undefined });
}

function cancelled(message: string): SessionOutcome {
  return { kind: 'failure', failure: new Failure('cancelled', message) };
}
