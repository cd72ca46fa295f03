// SPDY/3.1 as bytes (draft-mbelshe-httpbis-spdy-00, sections 2.2 and 2.6): frames cut out of what
// arrives, and the few kinds of frames that a server of Kubernetes' streams sends.

export const CONTROL = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;

export const FLAG_FIN = 0x01;

/** Section 2.6.3. */
export const RESET = { protocolError: 1, invalidStream: 2, refused: 3, cancel: 5 } as const;
/** Section 2.6.6. */
export const GO_AWAY = { ok: 0, protocolError: 1 } as const;

const VERSION = 3;
export const FRAME_HEADER_BYTES = 8;
/** Header blocks and settings of these clients have a few hundred bytes. */
export const CONTROL_BYTES_MAX = 64 * 1024;
const STREAM_ID_MASK = 0x7fffffff;

/** The other side broke the protocol: the connection can't go on. */
export class SpdyError extends Error {
  override readonly name = 'SpdyError';
}

export interface FrameHandlers {
  /** A control frame, whole. */
  control(type: number, flags: number, payload: Buffer): void;
  /** A piece of a data frame as it arrives; `fin` with the last one of a frame that has the flag. */
  data(streamId: number, piece: Buffer, fin: boolean): void;
}

interface FrameHead {
  readonly control: boolean;
  /** Of a control frame its type, else the id of its stream. */
  readonly subject: number;
  readonly flags: number;
}

/** Cuts a byte stream into frames; raises SpdyError for what no frame begins with or is too long. */
export function createFrameParser(handlers: FrameHandlers): (chunk: Buffer) => void {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  let headerBytes = 0;
  let head: FrameHead | undefined;
  let leftBytes = 0;
  let kept: Buffer[] = [];

  const payload = (piece: Buffer, { control, subject, flags }: FrameHead): void => {
    leftBytes -= piece.length;
    const last = leftBytes === 0;
    if (last) {
      head = undefined;
      headerBytes = 0;
    }
    if (!control) {
      const fin = last && (flags & FLAG_FIN) !== 0;
      if (piece.length > 0 || fin) handlers.data(subject, piece, fin);
      return;
    }
    kept.push(piece);
    if (!last) return;
    const whole = kept.length === 1 ? piece : Buffer.concat(kept);
    kept = [];
    handlers.control(subject, flags, whole);
  };
  return (chunk) => {
    let rest = chunk;
    while (rest.length > 0) {
      if (head === undefined) {
        const copied = rest.copy(header, headerBytes);
        headerBytes += copied;
        rest = rest.subarray(copied);
        if (headerBytes < FRAME_HEADER_BYTES) return;
        leftBytes = header.readUInt32BE(4) & 0xffffff;
        head = readHead(header, leftBytes);
        if (leftBytes > 0 && rest.length === 0) return;
      }
      const piece = rest.subarray(0, leftBytes);
      rest = rest.subarray(piece.length);
      payload(piece, head);
    }
  };
}

function readHead(header: Buffer, lengthBytes: number): FrameHead {
  const first = header.readUInt32BE(0);
  const flags = header[4] ?? 0;
  if (first >>> 31 === 0) return { control: false, subject: first & STREAM_ID_MASK, flags };
  const version = (first >>> 16) & 0x7fff;
  if (version !== VERSION) throw new SpdyError(`a frame of version ${version}`);
  if (lengthBytes > CONTROL_BYTES_MAX)
    throw new SpdyError(`a control frame of ${lengthBytes} bytes`);
  return { control: true, subject: first & 0xffff, flags };
}

/** The header of a data frame; its bytes follow as they are. */
export function dataHeader(streamId: number, flags: number, lengthBytes: number): Buffer {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  header.writeUInt32BE(streamId & STREAM_ID_MASK, 0);
  header.writeUInt32BE(((flags << 24) | lengthBytes) >>> 0, 4);
  return header;
}

export function controlFrame(type: number, flags: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame.writeUInt32BE((((0x8000 | VERSION) << 16) | type) >>> 0, 0);
  frame.writeUInt32BE(((flags << 24) | payload.length) >>> 0, 4);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** 32-bit numbers, as RST_STREAM, GOAWAY and PING consist of. */
export function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, index * 4);
  return bytes;
}

/** The 32-bit number at an offset; raises SpdyError where the payload ends before it. */
export function wordAt(payload: Buffer, offset: number): number {
  if (payload.length < offset + 4) throw new SpdyError('a control frame that ends too early');
  return payload.readUInt32BE(offset);
}

export function streamIdAt(payload: Buffer, offset: number): number {
  return wordAt(payload, offset) & STREAM_ID_MASK;
}
