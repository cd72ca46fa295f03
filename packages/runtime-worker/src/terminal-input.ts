// What a client says to a terminal: keys, sizes, and that nothing more comes.

import type { Writable } from 'node:stream';
import { Failure } from '@cribus/contracts/failure.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import type { TerminalSize } from '@cribus/host/terminals.ts';
import { pour, type SessionChannel } from './session-channel.ts';

/** End of input from a terminal: VEOF as every fresh one has it (termios(3)). */
const CTRL_D = 4;
const NEWLINE = 10;

/** Takes the frames of a session that has a terminal. */
export function terminalInput(io: {
  readonly channel: SessionChannel;
  readonly master: Writable;
  readonly stdin: boolean;
  resize(size: TerminalSize): void;
}): (type: number, payload: Buffer) => void {
  const { channel, master } = io;
  let lastByte = NEWLINE;
  return (type, payload) => {
    if (type === FRAME.resize) io.resize(readSize(payload));
    if (!io.stdin) return;
    if (type === FRAME.stdin) {
      lastByte = payload.at(-1) ?? lastByte;
      pour(channel, payload, master);
    }
    // After a line that was begun the first one only sends that off.
    if (type === FRAME.stdinEnd && !master.destroyed) {
      master.write(Buffer.alloc(lastByte === NEWLINE ? 1 : 2, CTRL_D));
    }
  };
}

/** Raises data_loss for what is no size. */
export function readSize(payload: Buffer): TerminalSize {
  const { width, height } = JSON.parse(payload.toString('utf8')) as Record<string, unknown>;
  const valid = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= 0;
  if (!valid(width) || !valid(height)) throw new Failure('data_loss', 'a size is not a size');
  return { columns: width, rows: height };
}
