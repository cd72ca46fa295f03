// For tests: the gateway's side of a session.

import { connect, type Socket } from 'node:net';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  FRAME,
  type FrameType,
  readFailureFrame,
  writeFrames,
} from '@cribus/contracts/session.ts';

export interface Dialled {
  readonly socket: Socket;
  send(type: FrameType, payload?: Uint8Array | string): void;
  resize(width: number, height: number): void;
  /** Writes at the pace of the other side. */
  stream(chunks: Iterable<Buffer>): Promise<void>;
  stdout(): string;
  stderr(): string;
  /** Resolves once stdout has the text. */
  until(text: string): Promise<void>;
  /** The exit code; rejects with what a failure frame says. */
  readonly ended: Promise<number>;
  /** Resolves at a half-close of what comes. */
  readonly stdoutEnded: Promise<void>;
}

/** Dials; `onStdout` takes the bytes instead of `stdout()`. */
export function dialSession(
  session: Session,
  options: { readonly onStdout?: (chunk: Buffer) => void } = {},
): Dialled {
  const socket = connect(session.socketPath);
  const out = { stdout: '', stderr: '' };
  const waiting = new Set<() => void>();
  let halfClosed: () => void = () => undefined;
  const stdoutEnded = new Promise<void>((resolve) => {
    halfClosed = resolve;
  });
  const ended = new Promise<number>((resolve, reject) => {
    const read = createFrameReader((type, payload) => {
      if (type === FRAME.stdout && options.onStdout !== undefined) options.onStdout(payload);
      else if (type === FRAME.stdout) out.stdout += payload.toString('utf8');
      if (type === FRAME.stderr) out.stderr += payload.toString('utf8');
      if (type === FRAME.stdoutEnd) halfClosed();
      if (type === FRAME.failure) reject(readFailureFrame(payload));
      if (type === FRAME.exit) {
        resolve((JSON.parse(payload.toString('utf8')) as { exitCode: number }).exitCode);
      }
      for (const look of waiting) look();
    });
    socket.on('data', read);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the session ended without a last frame')));
  });
  // A test that cuts the session itself does not wait for its end.
  ended.catch(() => undefined);
  socket.write(encodeFrame(FRAME.secret, session.secret));
  const send: Dialled['send'] = (type, payload = '') =>
    socket.write(encodeFrame(type, Buffer.from(payload)));
  return {
    socket,
    send,
    resize: (width, height) => socket.write(encodeJsonFrame(FRAME.resize, { width, height })),
    stream: async (chunks) => {
      for (const chunk of chunks) {
        if (writeFrames(socket, FRAME.stdin, chunk)) continue;
        await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), ended]);
      }
      send(FRAME.stdinEnd);
    },
    stdout: () => out.stdout,
    stderr: () => out.stderr,
    until: async (text) => {
      const seen = new Promise<void>((resolve) => {
        const look = () => {
          if (!out.stdout.includes(text)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      });
      const over = ended.then(
        (code) => Promise.reject(new Error(`ended with ${code}: ${JSON.stringify(out)}`)),
        (error: unknown) => Promise.reject(error),
      );
      await Promise.race([seen, over]);
    },
    ended,
    stdoutEnded,
  };
}
