// One dialled session as its work sees it: frames in and out, at the pace of the slower side.

import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import {
  createFrameReader,
  encodeJsonFrame,
  type FRAME,
  type FrameType,
  writeFrames,
} from '@cribus/contracts/session.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { hasPeerHungUp } from '@cribus/host/sockets.ts';

/** How soon a dialler is missed whose bytes we don't take. */
const LOOK_INTERVAL_MS = 500;

export interface SessionChannel {
  /** Aborts when the dialler is gone. */
  readonly gone: AbortSignal;
  /** False when the sender should wait for `onceFree`. */
  send(type: FrameType, payload: Uint8Array): boolean;
  sendJson(type: FrameType, value: object): void;
  onceFree(resume: () => void): void;
  /** What was sent and the dialler has not taken yet, as far as it is not on its way. */
  queuedBytes(): number;
  /** The newest frame of a type among those that came before anybody receives. */
  peek(type: FrameType): Buffer | undefined;
  /** What comes after the secret; until it is called, once, frames wait. */
  receive(onFrame: (type: number, payload: Buffer) => void): void;
  /** Takes no more frames until `resume`; what has been read already still comes. */
  pause(): void;
  resume(): void;
}

/** The channel, and what its owner feeds it with; raises data_loss for bytes that are no frames. */
export function createChannel(socket: Socket, clock: Clock) {
  const gone = new AbortController();
  const cut = (why: string) => gone.abort(new Failure('cancelled', why));
  socket.on('error', () => cut('the session was cut'));
  socket.on('close', () => cut('the session was closed'));
  let receiver: ((type: number, payload: Buffer) => void) | undefined;
  const early: { readonly type: number; readonly payload: Buffer }[] = [];
  let looking = false;

  const look = async (): Promise<void> => {
    while (!gone.signal.aborted) {
      await clock.sleep(LOOK_INTERVAL_MS, gone.signal).catch(() => undefined);
      // A paused socket does not say that it was closed.
      if (socket.isPaused() && hasPeerHungUp(socket)) socket.destroy();
    }
  };
  const channel: SessionChannel = {
    gone: gone.signal,
    send: (type, payload) => writeFrames(socket, type, payload),
    sendJson: (type, value) => {
      if (!socket.destroyed) socket.write(encodeJsonFrame(type, value));
    },
    onceFree: (resume) => socket.once('drain', resume),
    queuedBytes: () => socket.writableLength,
    peek: (type) => early.findLast((frame) => frame.type === type)?.payload,
    receive: (onFrame) => {
      receiver = onFrame;
      for (const { type, payload } of early.splice(0)) onFrame(type, payload);
      channel.resume();
    },
    pause: () => {
      socket.pause();
      if (looking) return;
      looking = true;
      void look();
    },
    resume: () => {
      socket.resume();
    },
  };
  return {
    channel,
    /** One frame that came; before anybody receives, no further ones are read. */
    take: (type: number, payload: Buffer): void => {
      if (receiver === undefined) {
        early.push({ type, payload });
        channel.pause();
      } else receiver(type, payload);
    },
  };
}

/** Passes every frame of a socket on; one that sends anything else is cut. */
export function readFrames(socket: Socket, onFrame: (type: number, payload: Buffer) => void): void {
  const read = createFrameReader(onFrame);
  socket.on('data', (chunk: Buffer) => {
    try {
      read(chunk);
    } catch (error) {
      if (!isFailure(error) && !(error instanceof SyntaxError)) throw error;
      socket.destroy();
    }
  });
}

export interface Pump {
  /** At the stream's end, or once it is closed. */
  readonly ended: Promise<void>;
  sentBytes(): number;
  /** True while the dialler is too slow for it. */
  waits(): boolean;
}

/** Sends a stream as frames; while the dialler is slow the stream waits. */
export function pump(
  stream: Readable | undefined,
  channel: SessionChannel,
  options: {
    readonly type: typeof FRAME.stdout | typeof FRAME.stderr;
    /** Sees each chunk; false: it is not sent. */
    readonly onData?: (chunk: Buffer) => boolean;
  },
): Pump {
  let sentBytes = 0;
  let waits = false;
  const ended = new Promise<void>((resolve) => {
    if (stream === undefined || stream.readableEnded || stream.destroyed) return resolve();
    const send = (chunk: Buffer): boolean => {
      sentBytes += chunk.length;
      return options.onData?.(chunk) === false || channel.send(options.type, chunk);
    };
    stream.on('data', (chunk: Buffer) => {
      if (send(chunk)) return;
      stream.pause();
      waits = true;
      channel.onceFree(() => {
        waits = false;
        stream.resume();
      });
    });
    stream.on('error', () => {
      // A stream that broke passes nothing on any more of what it has read, as for a slow dialler.
      for (let chunk = stream.read(); chunk !== null; chunk = stream.read()) send(chunk as Buffer);
      resolve();
    });
    for (const event of ['end', 'close']) stream.on(event, () => resolve());
  });
  return { ended, sentBytes: () => sentBytes, waits: () => waits };
}

/** Writes the bytes of a frame; while the stream is full no further frames are taken. */
export function pour(channel: SessionChannel, payload: Buffer, into: Writable): void {
  if (into.destroyed || into.writableEnded || into.write(payload)) return;
  const resume = () => {
    into.off('drain', resume);
    into.off('close', resume);
    channel.resume();
  };
  into.on('drain', resume);
  // What nobody reads any more is dropped.
  into.on('close', resume);
  channel.pause();
}
