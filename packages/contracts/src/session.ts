// The bytes of an exec, attach or port-forward: frames over a unix socket of the owner. The dialling
// side (the gateway) sends `secret` first; then input flows one way, output and one end the other.

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

/** A frame with a JSON payload. */
export function encodeJsonFrame(type: FrameType, value: object): Buffer {
  return encodeFrame(type, Buffer.from(JSON.stringify(value)));
}

/** Cuts a byte stream into frames; raises data_loss for a frame over the maximum. */
export function createFrameReader(
  onFrame: (type: number, payload: Buffer) => void,
): (chunk: Buffer) => void {
  let pending: Buffer = Buffer.alloc(0);
  return (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    while (pending.length >= FRAME_HEADER_BYTES) {
      const length = pending.readUInt32BE(1);
      if (length > FRAME_PAYLOAD_BYTES_MAX) {
        throw new Failure('data_loss', `a session frame of ${length} bytes is over the maximum`);
      }
      if (pending.length < FRAME_HEADER_BYTES + length) return;
      const type = pending[0] ?? 0;
      const payload = pending.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length);
      pending = pending.subarray(FRAME_HEADER_BYTES + length);
      onFrame(type, payload);
    }
  };
}

/** The failure that a `failure` frame carries. */
export function readFailureFrame(payload: Buffer): Failure {
  const { kind, message } = JSON.parse(payload.toString('utf8')) as SessionFailure;
  return new Failure(kind in FAILURES ? kind : 'bug', message);
}
