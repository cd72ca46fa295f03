// What came for a stream and can't be handed on yet. One full inbox stops the reading of its whole
// connection: SPDY's clients in Kubernetes know no other flow control than TCP's.

import type { Receiver } from './client-stream.ts';

/** So much of one stream waits before its connection is no longer read. */
const WAITING_BYTES_MAX = 128 * 1024;

export interface Inbox {
  push(chunk: Buffer): void;
  /** The client's half is over; said to the receiver after everything that waits. */
  finish(): void;
  /** The client has given up the stream; what waits is thrown away where the receiver takes resets. */
  reset(): void;
  receive(receiver: Receiver): void;
  pause(): void;
  resume(): void;
  /** Throws away what waits and what still comes. */
  discard(): void;
}

/** Stops the reading of a connection while at least one of its inboxes is full. */
export interface Throttle {
  full(): void;
  roomy(): void;
}

export function createThrottle(reading: { pause(): void; resume(): void }): Throttle {
  let fullInboxes = 0;
  return {
    full() {
      fullInboxes += 1;
      if (fullInboxes === 1) reading.pause();
    },
    roomy() {
      fullInboxes -= 1;
      if (fullInboxes === 0) reading.resume();
    },
  };
}

export function createInbox(throttle: Throttle): Inbox {
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let receiver: Receiver | undefined;
  let state: 'open' | 'finished' | 'reset' | 'over' = 'open';
  let paused = false;
  let full = false;

  const setFull = (value: boolean): void => {
    if (full === value) return;
    full = value;
    if (full) throttle.full();
    else throttle.roomy();
  };
  const drop = (): void => {
    waiting = [];
    waitingBytes = 0;
    setFull(false);
  };
  const deliver = (): void => {
    if (state === 'reset' && receiver?.reset !== undefined) {
      state = 'over';
      drop();
      receiver.reset();
      return;
    }
    while (receiver !== undefined && !paused) {
      const chunk = waiting.shift();
      if (chunk === undefined) break;
      waitingBytes -= chunk.length;
      receiver.data(chunk);
    }
    setFull(waitingBytes > WAITING_BYTES_MAX);
    if (receiver === undefined || paused || waiting.length > 0) return;
    if (state !== 'finished' && state !== 'reset') return;
    state = 'over';
    receiver.end();
  };
  return {
    push(chunk) {
      if (state !== 'open') return;
      waiting.push(chunk);
      waitingBytes += chunk.length;
      deliver();
    },
    finish() {
      if (state !== 'open') return;
      state = 'finished';
      deliver();
    },
    reset() {
      if (state === 'over' && receiver?.reset === undefined) return;
      state = 'reset';
      deliver();
    },
    receive(given) {
      receiver = given;
      deliver();
    },
    pause() {
      paused = true;
    },
    resume() {
      paused = false;
      deliver();
    },
    discard() {
      state = 'over';
      drop();
    },
  };
}
