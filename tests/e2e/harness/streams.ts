// Exec and attach as a client of any protocol sees them: one shape for SPDY and WebSockets.

import { createCipheriv, createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  AttachRequest,
  ExecRequest,
  PortForwardRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { dialChannels } from '@cribus/cri-gateway/streaming/testing/channel-client.ts';
import {
  createSpdyTestClient,
  dialSpdy,
  dialTunnelWire,
  type SpdyTestClient,
  type TestStream,
} from '@cribus/cri-gateway/streaming/testing/spdy-client.ts';
import type { Cri } from './cri.ts';

export const SPDY_PROTOCOLS = [
  'v4.channel.k8s.io',
  'v3.channel.k8s.io',
  'v2.channel.k8s.io',
  'channel.k8s.io',
] as const;
export const WEBSOCKET_PROTOCOLS = [
  'v5.channel.k8s.io',
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
] as const;

export type Transport = 'SPDY' | 'WebSocket';

export interface StreamRequest {
  readonly containerId: string;
  /** Without one it is an attach. */
  readonly cmd?: readonly string[];
  readonly tty?: boolean;
  readonly stdin?: boolean;
  readonly transport?: Transport;
  readonly protocol?: string;
}

/** The end of a command as the error stream tells it; text before v4. */
export interface CommandEnd {
  readonly text: string;
  /** Undefined where nothing tells it. */
  readonly exitCode: number | undefined;
}

export interface CommandStreams {
  readonly protocol: string;
  /** False when the socket is full. */
  write(bytes: Buffer | string): boolean;
  endInput(): void;
  resize(width: number, height: number): void;
  onOutput(listener: (piece: Buffer) => void): void;
  /** What came by the end, or so far where it is asked for earlier. */
  readonly stdout: Promise<Buffer>;
  readonly stderr: Promise<Buffer>;
  readonly end: Promise<CommandEnd>;
  readonly socket: Socket;
  destroy(): void;
}

/** Asks for the URL of an exec or attach. */
export async function streamUrl(cri: Cri, request: StreamRequest): Promise<string> {
  const { containerId, cmd, tty = false, stdin = false } = request;
  const streams = { containerId, tty, stdin, stdout: true, stderr: !tty };
  const { url } =
    cmd === undefined
      ? await cri.call('attach', AttachRequest.fromPartial(streams))
      : await cri.call('exec', ExecRequest.fromPartial({ ...streams, cmd: [...cmd] }));
  return url;
}

/** Runs a command, or attaches, and connects to its streams. */
export async function openStreams(cri: Cri, request: StreamRequest): Promise<CommandStreams> {
  const url = await streamUrl(cri, request);
  return request.transport === 'WebSocket' ? overWebSocket(url, request) : overSpdy(url, request);
}

/** What a client has to know of a command whose URL it has. */
export type StreamOptions = Pick<StreamRequest, 'tty' | 'stdin' | 'protocol'>;

export async function overSpdy(url: string, request: StreamOptions): Promise<CommandStreams> {
  const { tty = false, stdin = false, protocol = SPDY_PROTOCOLS[0] } = request;
  const client = await dialSpdy(url, [protocol]);
  const open = (streamtype: string) => client.open({ streamtype });
  const resizes = tty && ['v4', 'v3'].includes(protocol.slice(0, 2));
  const [error, input, output, errors, sizes] = await Promise.all([
    open('error'),
    stdin ? open('stdin') : undefined,
    open('stdout'),
    tty ? undefined : open('stderr'),
    resizes ? open('resize') : undefined,
  ]);
  return {
    protocol: client.wire.protocol,
    write: (bytes) => input?.write(bytes) ?? true,
    endInput: () => input?.end(),
    resize: (width, height) => sizes?.write(JSON.stringify({ Width: width, Height: height })),
    onOutput: (listener) => output.onData(listener),
    stdout: output.all,
    stderr: errors?.all ?? Promise.resolve(Buffer.alloc(0)),
    end: error.all.then(readEnd),
    socket: client.wire.socket,
    destroy: () => client.destroy(),
  };
}

export async function overWebSocket(url: string, request: StreamOptions): Promise<CommandStreams> {
  const client = await dialChannels(url, [request.protocol ?? WEBSOCKET_PROTOCOLS[0]]);
  const ended = (channel: number) => client.closed.then(() => client.received(channel));
  return {
    protocol: client.protocol,
    write: (bytes) => client.send(0, bytes),
    endInput: () => client.closeChannel(0),
    resize: (width, height) => {
      client.send(4, JSON.stringify({ Width: width, Height: height }));
    },
    onOutput: (listener) => client.onData(1, listener),
    stdout: ended(1),
    stderr: ended(2),
    end: ended(3).then(readEnd),
    socket: client.socket,
    destroy: () => client.destroy(),
  };
}

interface Status {
  readonly status: string;
  readonly reason?: string;
  readonly details?: { readonly causes: { readonly reason?: string; readonly message: string }[] };
}

function readEnd(bytes: Buffer): CommandEnd {
  const text = bytes.toString();
  if (!text.startsWith('{')) return { text, exitCode: undefined };
  const { status, reason, details } = JSON.parse(text) as Status;
  if (status === 'Success') return { text, exitCode: 0 };
  const cause = details?.causes.find((one) => one.reason === 'ExitCode');
  const told = reason === 'NonZeroExitCode' && cause !== undefined;
  return { text, exitCode: told ? Number(cause.message) : undefined };
}

/** A connection that ports of a sandbox are forwarded over. */
export async function openForwarding(
  cri: Cri,
  podSandboxId: string,
  transport: Transport = 'SPDY',
): Promise<SpdyTestClient> {
  const { url } = await cri.call('portForward', PortForwardRequest.fromPartial({ podSandboxId }));
  return transport === 'SPDY'
    ? dialSpdy(url, ['portforward.k8s.io'])
    : createSpdyTestClient(await dialTunnelWire(url));
}

let forwarded = 0;

/** One connection to a port. */
export async function forward(
  client: SpdyTestClient,
  port: number,
): Promise<{ readonly data: TestStream; readonly error: TestStream }> {
  forwarded += 1;
  const headers = { port: String(port), requestid: String(forwarded) };
  const error = await client.open({ ...headers, streamtype: 'error' });
  error.end();
  return { error, data: await client.open({ ...headers, streamtype: 'data' }) };
}

/** Bytes that no compression and no luck gets right, always the same, made as fast as AES is. */
export function pumpBytes(
  sink: { write(piece: Buffer): boolean; readonly socket: Socket; end(): void },
  totalBytes: number,
): Promise<string> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const zeros = Buffer.alloc(256 * 1024);
  const digest = createHash('sha256');
  let left = totalBytes;
  return new Promise((resolve) => {
    const go = (): void => {
      while (left > 0) {
        const piece = cipher.update(zeros.subarray(0, Math.min(left, zeros.length)));
        left -= piece.length;
        digest.update(piece);
        if (!sink.write(piece) && left > 0) {
          sink.socket.once('drain', go);
          return;
        }
      }
      sink.end();
      resolve(digest.digest('hex'));
    };
    go();
  });
}
