// What a monitor says on one connection to its attach socket, for the sessions that watch it, at the pace
// of the slowest. conmon writes there with calls that block, in the one loop that also writes the
// container's log, takes orders and sees the container end: so a client may be slow, but not stand still.

import { Failure } from '@cribus/contracts/failure.ts';
import type { AttachRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import type { PacketSocket } from '@cribus/host/packet-socket.ts';
import type { SessionChannel } from './session-channel.ts';
import type { Worker } from './worker.ts';

/** First byte of what conmon sends (conmon, src/utils.h); the rest is the stream's. */
const MONITOR_STREAMS = { 2: 'stdout', 3: 'stderr' } as const;
/**
 * How long a client may take nothing while the container's output waits for it. What it takes shows in
 * whole writes, so it has to take some 64 KiB.
 */
const STALL_MS_MAX = 10_000;
/** Once the container is killed only the record of its end is waited for. */
const STALL_AFTER_KILL_MS_MAX = 1_000;
const LOOK_INTERVAL_MS = 250;

interface Watcher {
  readonly request: Pick<AttachRequest, 'stdout' | 'stderr'>;
  readonly channel: SessionChannel;
}

export interface AttachedOutputs {
  /**
   * True when the monitor closes the connection, which it does at the container's end; false when the
   * signal aborts. Raises timeout for a client that takes nothing for too long; the others go on.
   */
  passTo(watcher: Watcher, signal: AbortSignal): Promise<boolean>;
  /** Resolves when the connection is closed, by either side. */
  readonly ended: Promise<void>;
}

interface Taker extends Watcher {
  /** When its client last took something, in monotonic milliseconds. */
  movedAtMs: number;
  /** Whether somebody looks at how it gets on. */
  watched: boolean;
  end(failure?: Failure): void;
}

/** Reads the connection from now on; what nobody watches is dropped. */
export function createAttachedOutputs(
  worker: Worker,
  id: string,
  packets: PacketSocket,
): AttachedOutputs {
  const { clock } = worker.service;
  const { stream } = packets;
  const takers = new Set<Taker>();
  const full = new Set<Taker>();
  let over = false;

  const free = (taker: Taker): void => {
    full.delete(taker);
    if (full.size === 0) stream.resume();
  };
  const holdUp = (taker: Taker): void => {
    if (full.has(taker)) return;
    full.add(taker);
    taker.movedAtMs = clock.monotonicMs();
    taker.channel.onceFree(() => free(taker));
    if (!taker.watched) void endStalled(worker, { id, taker, waits: () => full.has(taker) });
  };
  const pass = (packet: Buffer): void => {
    const name = MONITOR_STREAMS[packet[0] as keyof typeof MONITOR_STREAMS];
    if (name === undefined) return;
    for (const taker of takers) {
      if (taker.request[name] && !taker.channel.send(FRAME[name], packet.subarray(1)))
        holdUp(taker);
    }
  };
  const ended = new Promise<void>((resolve) => {
    const finish = (): void => {
      if (over) return;
      over = true;
      for (const packet of packets.readRest()) pass(packet);
      for (const taker of takers) taker.end();
      resolve();
    };
    stream.on('data', (packet: Buffer) => {
      pass(packet);
      if (full.size > 0) stream.pause();
    });
    for (const event of ['end', 'error', 'close']) stream.on(event, finish);
  });
  return {
    ended,
    passTo: (watcher, signal) =>
      new Promise((resolve, reject) => {
        const leave = (): void => taker.end();
        const taker: Taker = {
          ...watcher,
          movedAtMs: 0,
          watched: false,
          end: (failure) => {
            if (!takers.delete(taker)) return;
            signal.removeEventListener('abort', leave);
            free(taker);
            if (failure === undefined) resolve(over);
            else reject(failure);
          },
        };
        takers.add(taker);
        if (over || signal.aborted) leave();
        else signal.addEventListener('abort', leave, { once: true });
      }),
  };
}

/** Ends a session whose client takes nothing, while the connection waits for it. */
async function endStalled(
  worker: Worker,
  of: { readonly id: string; readonly taker: Taker; readonly waits: () => boolean },
): Promise<void> {
  const { clock } = worker.service;
  const { id, taker, waits } = of;
  taker.watched = true;
  let queued = taker.channel.queuedBytes();
  while (waits()) {
    await clock.sleep(LOOK_INTERVAL_MS, taker.channel.gone).catch(() => undefined);
    const left = taker.channel.queuedBytes();
    if (left < queued) taker.movedAtMs = clock.monotonicMs();
    queued = left;
    const killAtMs = worker.killTimes.get(id)?.atMs ?? Number.POSITIVE_INFINITY;
    const killed = killAtMs <= clock.monotonicMs();
    const limitMs = killed ? STALL_AFTER_KILL_MS_MAX : STALL_MS_MAX;
    if (!waits() || clock.monotonicMs() - taker.movedAtMs < limitMs) continue;
    const why = `the client took nothing for ${limitMs / 1000} s, and the container's log waited for it`;
    taker.end(new Failure('timeout', `attach to container ${id}: ${why}`));
  }
  taker.watched = false;
}
