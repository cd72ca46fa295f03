// The bytes of an exec, attach or port-forward: frames over a unix socket of the owner. The dialling
// side (the gateway) sends `secret` first; then input flows one way, output and one end the other.
// Whoever is slow makes the other wait: a side that can't pass bytes on stops reading the socket.

import type { Writable } from 'node:stream';
import { FAILURES, Failure, type FailureKind } from './failure.ts';

/** First byte of a frame; then four bytes of length, big endian; then the payload. */
export const FRAME = {
  /** The 16 secret bytes of the Session message; once, first. */
  secret: 0,
  stdin: 1,
  stdout: 2,
  stderr: 3,
  /** JSON SessionExit: the process ended; the last frame. */
  exit: 4,
  /** JSON {width, height}. */
  resize: 5,
  /** JSON SessionFailure: the session could not do its work; the last frame. */
  failure: 6,
  /** Nothing more comes on stdin. */
  stdinEnd: 7,
  /** Nothing more comes on stdout, while stdin is still taken: a forwarded port's half-close. */
  stdoutEnd: 8,
} as const;

export type FrameType = (typeof FRAME)[keyof typeof FRAME];

export interface SessionExit {
  readonly exitCode: number;
  /** Output beyond the maximum was dropped. */
  readonly truncated?: boolean;
}

export interface SessionFailure {
  readonly kind: FailureKind;
  readonly message: string;
}

export const FRAME_HEADER_BYTES = 5;
/** Larger payloads are sent in pieces; a larger frame is a protocol error. */
export const FRAME_PAYLOAD_BYTES_MAX = 1024 * 1024;
/** A secret is void after this long. */
export const SESSION_DIAL_BUDGET_MS = 10_000;
export const SESSION_SECRET_BYTES = 16;

/** One frame as bytes to write. */
export function encodeFrame(type: FrameType, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame[0] = type;
  frame.writeUInt32BE(payload.length, 1);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/**
 * Writes bytes as frames without a copy of them; false when the writer should wait for 'drain'. A
 * writer that is closed takes nothing and never drains: the answer is true then.
 */
export function writeFrames(to: Writable, type: FrameType, payload: Uint8Array): boolean {
  if (to.destroyed || to.writableEnded) return true;
  let free = true;
  // Header and payload leave in one system call.
  to.cork();
  let at = 0;
  do {
    const piece = payload.subarray(at, at + FRAME_PAYLOAD_BYTES_MAX);
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
    header[0] = type;
    header.writeUInt32BE(piece.length, 1);
    free = to.write(header);
    if (piece.length > 0) free = to.write(piece);
    at += FRAME_PAYLOAD_BYTES_MAX;
  } while (at < payload.length);
  to.uncork();
  return free;
}

/** A frame with a JSON payload. */
export function encodeJsonFrame(type: FrameType, value: object): Buffer {
  return encodeFrame(type, Buffer.from(JSON.stringify(value)));
}

/**
 * Cuts a byte stream into frames; raises data_loss for a frame over the maximum. The bytes of stdin,
 * stdout and stderr are passed on as they come, so that one frame may be several calls, and an empty
 * one is none; every other frame comes whole. What is passed on is a part of the chunk: nothing is
 * copied but frames that are cut by the end of a chunk and must come whole.
 */
export function createFrameReader(
  onFrame: (type: number, payload: Buffer) => void,
): (chunk: Buffer) => void {
  let header: Buffer = Buffer.alloc(0);
  let body: Buffer[] = [];
  let type = 0;
  let missing = 0;
  let inBody = false;

  const take = (chunk: Buffer): void => {
    missing -= chunk.length;
    if (isStream(type)) {
      if (chunk.length > 0) onFrame(type, chunk);
    } else body.push(chunk);
    if (missing > 0) return;
    inBody = false;
    const parts = body;
    body = [];
    const [first = chunk] = parts;
    if (!isStream(type)) onFrame(type, parts.length === 1 ? first : Buffer.concat(parts));
  };

  const open = (part: Buffer): void => {
    header = header.length === 0 ? part : Buffer.concat([header, part]);
    if (header.length < FRAME_HEADER_BYTES) return;
    type = header[0] ?? 0;
    missing = header.readUInt32BE(1);
    header = Buffer.alloc(0);
    if (missing > FRAME_PAYLOAD_BYTES_MAX) {
      throw new Failure('data_loss', `a session frame of ${missing} bytes is over the maximum`);
    }
    inBody = true;
    if (missing === 0) take(Buffer.alloc(0));
  };

  return (chunk) => {
    let at = 0;
    while (at < chunk.length) {
      const wanted = inBody ? missing : FRAME_HEADER_BYTES - header.length;
      const part = chunk.subarray(at, at + wanted);
      at += part.length;
      if (inBody) take(part);
      else open(part);
    }
  };
}

function isStream(type: number): boolean {
  return type === FRAME.stdin || type === FRAME.stdout || type === FRAME.stderr;
}

/** The failure that a `failure` frame carries. */
export function readFailureFrame(payload: Buffer): Failure {
  const { kind, message } = JSON.parse(payload.toString('utf8')) as SessionFailure;
  return new Failure(kind in FAILURES ? kind : 'bug', message);
}
