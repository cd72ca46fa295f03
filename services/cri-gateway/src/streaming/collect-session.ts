// The output of a session that is collected whole, as ExecSync answers it.

import { connect } from 'node:net';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  createFrameReader,
  encodeFrame,
  FRAME,
  readFailureFrame,
  type SessionExit,
} from '@cribus/contracts/session.ts';
import { MESSAGE_BYTES_MAX } from '@cribus/contracts/subjects.ts';

/**
 * The largest answer. A CRI client takes messages of 16 MiB, from which CRI keeps 64 KiB; what is
 * beyond is dropped, as it asks (CVE-2022-1708).
 */
export const ANSWER_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024;
/** Of both streams: tags, lengths and the exit code have their place in the answer, too. */
const OUTPUT_BYTES_MAX = ANSWER_BYTES_MAX - 1024;

export interface SessionOutput {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly exitCode: number;
  readonly droppedBytes: number;
  readonly truncatedByOwner: boolean;
}

/**
 * Dials the session and collects until its end. Raises what the owner's failure frame says (timeout
 * when the command was killed for it), unavailable when the owner goes away in between, and the
 * signal's reason when it aborts: the socket is closed then, and the owner kills the command.
 */
export async function collectSession(options: {
  readonly session: Session;
  readonly signal: AbortSignal;
  readonly what: string;
}): Promise<SessionOutput> {
  const { session, signal, what } = options;
  signal.throwIfAborted();
  const output = createCollector();
  const socket = connect(session.socketPath);
  const onAbort = (): void => {
    socket.destroy();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await new Promise<SessionOutput>((resolve, reject) => {
      const read = createFrameReader((type, payload) => {
        if (type === FRAME.stdout || type === FRAME.stderr) output.add(type, payload);
        else if (type === FRAME.exit) resolve(output.end(payload));
        else if (type === FRAME.failure) reject(readFailureFrame(payload));
      });
      socket.on('connect', () => socket.write(encodeFrame(FRAME.secret, session.secret)));
      socket.on('data', (chunk: Buffer) => {
        try {
          read(chunk);
        } catch (error) {
          reject(error);
        }
      });
      socket.on('error', (cause) => {
        reject(new Failure('unavailable', `${what}: its session failed`, { cause }));
      });
      socket.on('close', () => {
        if (signal.aborted) reject(signal.reason);
        else reject(new Failure('unavailable', `${what}: its worker ended the session`));
      });
    });
  } finally {
    signal.removeEventListener('abort', onAbort);
    socket.destroy();
  }
}

/** Keeps the beginning of each stream; what doesn't fit together is cut from the longer one. */
function createCollector() {
  const kept = { [FRAME.stdout]: createBeginning(), [FRAME.stderr]: createBeginning() };
  let addedBytes = 0;
  return {
    add(type: typeof FRAME.stdout | typeof FRAME.stderr, payload: Buffer): void {
      addedBytes += payload.length;
      kept[type].add(payload);
    },
    end(payload: Buffer): SessionOutput {
      const exit = JSON.parse(payload.toString('utf8')) as SessionExit;
      const streams = { stdout: kept[FRAME.stdout].whole(), stderr: kept[FRAME.stderr].whole() };
      const share = (other: Buffer) =>
        OUTPUT_BYTES_MAX - Math.min(other.length, OUTPUT_BYTES_MAX / 2);
      const stdout = streams.stdout.subarray(0, share(streams.stderr));
      const stderr = streams.stderr.subarray(0, share(stdout));
      return {
        stdout,
        stderr,
        exitCode: exit.exitCode,
        droppedBytes: addedBytes - stdout.length - stderr.length,
        truncatedByOwner: exit.truncated === true,
      };
    },
  };
}

function createBeginning() {
  const chunks: Buffer[] = [];
  let roomBytes = OUTPUT_BYTES_MAX;
  return {
    add(payload: Buffer): void {
      const part = payload.subarray(0, roomBytes);
      roomBytes -= part.length;
      if (part.length > 0) chunks.push(part);
    },
    whole: () => Buffer.concat(chunks),
  };
}
