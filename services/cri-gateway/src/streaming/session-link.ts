// The gateway's end of a session: frames to and from the worker that does the work, with
// back-pressure both ways. Output is handed on in the pieces in which it arrives.

import { connect } from 'node:net';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  encodeFrame,
  FRAME,
  FRAME_HEADER_BYTES,
  FRAME_PAYLOAD_BYTES_MAX,
  type FrameType,
  readFailureFrame,
  type SessionExit,
} from '@cribus/contracts/session.ts';

/** What libuv reads at once. */
const READ_BYTES = 64 * 1024;

export type SessionOutcome =
  | { readonly kind: 'exit'; readonly exit: SessionExit }
  | { readonly kind: 'failure'; readonly failure: Failure };

export interface SessionReceiver {
  stdout(piece: Buffer): void;
  stderr(piece: Buffer): void;
  /** Nothing more comes on stdout, while input is still taken. */
  stdoutEnd(): void;
  /** Whether pieces that were handed over may still be in use. */
  isHolding(): boolean;
  /** Input is taken again. */
  drain(): void;
  /** Once; nothing comes after it. */
  end(outcome: SessionOutcome): void;
}

export interface SessionLink {
  /** False: the worker takes no more for now, wait for `drain`. After the end nothing is sent. */
  send(type: FrameType, payload: Buffer): boolean;
  /** Holds the worker's output back. */
  pause(): void;
  resume(): void;
  /** Hangs up: the worker ends what it does for this session. */
  destroy(): void;
}

/** Dials a session of a worker; every failure to do so is an outcome. */
export function dialSession(options: {
  readonly session: Session;
  readonly what: string;
  readonly receiver: SessionReceiver;
}): SessionLink {
  const { session, what, receiver } = options;
  const memory = createReadMemory();
  const socket = connect({
    path: session.socketPath,
    onread: {
      buffer: memory.take,
      callback(bytes, chunk) {
        try {
          parse(Buffer.from(chunk.buffer, chunk.byteOffset, bytes));
        } catch (error) {
          fail(new Failure('data_loss', `${what}: its session broke`, { cause: error }));
        }
        if (receiver.isHolding()) memory.renew();
        return true;
      },
    },
  });
  let over = false;
  const finish = (outcome: SessionOutcome): void => {
    if (over) return;
    over = true;
    socket.destroy();
    receiver.end(outcome);
  };
  const fail = (failure: Failure): void => finish({ kind: 'failure', failure });
  const parse = createPieceParser({
    piece(type, piece) {
      if (over) return;
      if (type === FRAME.stdout) receiver.stdout(piece);
      else if (type === FRAME.stderr) receiver.stderr(piece);
    },
    frame(type, payload) {
      if (over) return;
      if (type === FRAME.stdoutEnd) receiver.stdoutEnd();
      else if (type === FRAME.failure) fail(readFailureFrame(payload));
      else if (type === FRAME.exit) {
        finish({ kind: 'exit', exit: JSON.parse(payload.toString('utf8')) as SessionExit });
      }
    },
  });
  socket.on('drain', () => receiver.drain());
  socket.on('error', (cause) =>
    fail(new Failure('unavailable', `${what}: its session failed`, { cause })),
  );
  socket.on('close', () =>
    fail(new Failure('unavailable', `${what}: its worker ended the session`)),
  );
  socket.write(encodeFrame(FRAME.secret, session.secret));
  return {
    send(type, payload) {
      if (over) return true;
      if (payload.length > FRAME_PAYLOAD_BYTES_MAX) {
        this.send(type, payload.subarray(0, FRAME_PAYLOAD_BYTES_MAX));
        return this.send(type, payload.subarray(FRAME_PAYLOAD_BYTES_MAX));
      }
      const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
      header[0] = type;
      header.writeUInt32BE(payload.length, 1);
      socket.cork();
      socket.write(header);
      const roomy = socket.write(payload);
      socket.uncork();
      return roomy;
    },
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    destroy() {
      over = true;
      socket.destroy();
    },
  };
}

/**
 * One buffer for everything that is read, replaced only when a slow client still has bytes of it:
 * a fresh one for each read would have the garbage collector take most of the time of a stream.
 */
function createReadMemory(): { take(): Buffer; renew(): void } {
  let buffer: Buffer | undefined;
  return {
    take() {
      buffer ??= Buffer.allocUnsafeSlow(READ_BYTES);
      return buffer;
    },
    renew() {
      buffer = undefined;
    },
  };
}

/** Output in pieces as they come; every other frame whole. Raises data_loss for one too large. */
export function createPieceParser(on: {
  piece(type: number, piece: Buffer): void;
  frame(type: number, payload: Buffer): void;
}): (chunk: Buffer) => void {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  let headerBytes = 0;
  let leftBytes = 0;
  let kept: Buffer[] = [];
  const type = (): number => header[0] ?? 0;
  const inPieces = (): boolean => type() === FRAME.stdout || type() === FRAME.stderr;
  return (chunk) => {
    let rest = chunk;
    while (rest.length > 0) {
      if (headerBytes < FRAME_HEADER_BYTES) {
        const copied = rest.copy(header, headerBytes);
        headerBytes += copied;
        rest = rest.subarray(copied);
        if (headerBytes < FRAME_HEADER_BYTES) return;
        leftBytes = header.readUInt32BE(1);
        if (leftBytes > FRAME_PAYLOAD_BYTES_MAX) {
          throw new Failure('data_loss', `a session frame of ${leftBytes} bytes is too large`);
        }
      }
      const piece = rest.subarray(0, leftBytes);
      rest = rest.subarray(piece.length);
      leftBytes -= piece.length;
      if (inPieces()) {
        if (piece.length > 0) on.piece(type(), piece);
      } else {
        // The memory of the chunk is used again.
        kept.push(Buffer.from(piece));
      }
      if (leftBytes > 0) return;
      headerBytes = 0;
      if (inPieces()) continue;
      const payload = Buffer.concat(kept);
      kept = [];
      on.frame(type(), payload);
    }
  };
}
