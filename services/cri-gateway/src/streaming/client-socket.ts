// The TCP connection of a client after its upgrade: when it drains, when it is idle for too long, and
// when the client is gone, which a socket that isn't read does not say by itself.

import type { Socket } from 'node:net';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { hasPeerHungUp } from '@cribus/host/sockets.ts';

/**
 * How often a connection that isn't read is looked at. The end of a client that is behind bytes which
 * nobody takes is not even sent, so something is written first: a client that is gone answers that
 * with a reset (tcp(7), RFC 1122, 4.2.2.13), and the next look sees it.
 */
const HANG_UP_CHECK_MS = 500;
/** A client behind a dead network is given up some minutes later (tcp(7), TCP_KEEPIDLE). */
const KEEP_ALIVE_MS = 30_000;
/** Once it has been sent everything a client may take so long to close its side. */
const LINGER_MS = 30_000;
/** How often is looked whether the last bytes are out, for which there is no event. */
const OUT_CHECK_MS = 500;

export interface ClientSocket {
  readonly closed: AbortSignal;
  /** The socket holds more than it should: wait for the drain. */
  isFull(): boolean;
  onDrain(listener: () => void): () => void;
  /** Bytes wait in the socket for the kernel to take them. */
  isHolding(): boolean;
  /** Stops and goes on reading. */
  pause(): void;
  resume(): void;
  /** Bytes of a stream went one way or the other: not idle. */
  touch(): void;
  /**
   * After the goodbye: destroys the socket unless the client closes it in time, counted from when all
   * is out. A client that doesn't read, as behind a pager, has as long for that as one that is idle.
   */
  linger(): void;
  destroy(): void;
}

/**
 * Takes over a socket. `reading` is what pauses it where a protocol's library is in between;
 * `idleMs` without a touch ends it.
 */
export function createClientSocket(options: {
  readonly socket: Socket;
  readonly reading?: { pause(): void; resume(): void };
  /** Writes what means nothing to the client. */
  readonly probe: () => void;
  readonly clock: Clock;
  readonly idleMs: number;
}): ClientSocket {
  const { socket, clock, idleMs, probe, reading = socket } = options;
  const gone = new AbortController();
  const listeners = new Set<() => void>();
  let touchedAtMs = clock.monotonicMs();
  let paused = false;
  let watching = false;

  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  socket.on('error', () => socket.destroy());
  socket.on('close', () => gone.abort(new Failure('cancelled', 'the client is gone')));
  socket.on('drain', () => {
    for (const listener of [...listeners]) listener();
  });
  if (socket.destroyed) gone.abort(new Failure('cancelled', 'the client is gone'));

  const watchHangUp = async (): Promise<void> => {
    watching = true;
    while (paused && !gone.signal.aborted) {
      await clock.sleep(HANG_UP_CHECK_MS, gone.signal).catch(() => undefined);
      if (!paused || socket.destroyed) continue;
      if (hasPeerHungUp(socket)) socket.destroy();
      else if (socket.writableLength === 0) probe();
    }
    watching = false;
  };
  const destroyAfter = async (waitMs: () => number): Promise<void> => {
    while (!gone.signal.aborted) {
      const leftMs = waitMs();
      if (leftMs <= 0) socket.destroy();
      else await clock.sleep(leftMs, gone.signal).catch(() => undefined);
      if (leftMs <= 0) return;
    }
  };
  void destroyAfter(() => touchedAtMs + idleMs - clock.monotonicMs());
  const linger = async (): Promise<void> => {
    while (socket.writableLength > 0 && !gone.signal.aborted) {
      await clock.sleep(OUT_CHECK_MS, gone.signal).catch(() => undefined);
    }
    const untilMs = clock.monotonicMs() + LINGER_MS;
    await destroyAfter(() => untilMs - clock.monotonicMs());
  };
  // A library's goodbye, as to a client that said it first.
  socket.once('finish', () => void linger());

  return {
    closed: gone.signal,
    isFull: () => socket.writableNeedDrain,
    isHolding: () => socket.writableLength > 0,
    onDrain(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    pause() {
      paused = true;
      reading.pause();
      if (!watching) void watchHangUp();
    },
    resume() {
      paused = false;
      if (!socket.destroyed) reading.resume();
    },
    touch() {
      touchedAtMs = clock.monotonicMs();
    },
    linger: () => void linger(),
    destroy: () => socket.destroy(),
  };
}
