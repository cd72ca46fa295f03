// One question until its answer: asked again with the same operation id, answered at one inbox
// whichever of its attempts is answered first.

import { Failure } from '@cribus/contracts/failure.ts';
import {
  type OwnerName,
  REASK_INTERVAL_MS,
  STARTUP_GRACE_MS,
  type VerbName,
} from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { Msg } from '@nats-io/transport-node';
import { failureOfAbort } from '../abort.ts';

/** While the server says "no responders", the owner is asked again this often. */
const NO_RESPONDERS_INTERVAL_MS = 100;
/** More questions than this waiting at once are refused. */
const QUESTIONS_MAX = 10_000;
/** NATS' status of a request that nobody is subscribed to. */
const NO_RESPONDERS_STATUS = 503;

export interface Question {
  readonly owner: OwnerName;
  readonly verb: VerbName;
  readonly signal: AbortSignal;
  /** Publishes one attempt, to be answered at `replyTo`; throws a Failure when it can't be sent. */
  readonly send: (replyTo: string, attempt: number) => void;
}

export interface Asker {
  ask(question: Question): Promise<Msg>;
  /** A message that came to `<inbox>.<token>`. */
  onMessage(message: Msg): void;
  /** Asks everything again that is still waiting. */
  onReconnect(): void;
  /** Fails everything that is still waiting. */
  close(): void;
}

interface Waiting {
  onMessage(message: Msg): void;
  send(): void;
  fail(failure: Failure): void;
}

/** Makes the asker of one connection, whose inbox is subscribed as `<inbox>.*`. */
export function createAsker(options: {
  readonly inbox: string;
  readonly clock: Clock;
  readonly connected: () => boolean;
}): Asker {
  const waiting = new Map<string, Waiting>();
  let tokens = 0;

  function ask(question: Question): Promise<Msg> {
    const what = `${question.owner} ${question.verb}`;
    if (question.signal.aborted) return Promise.reject(failureOfAbort(question.signal, what));
    if (waiting.size >= QUESTIONS_MAX) {
      return Promise.reject(new Failure('limit', `${waiting.size} requests are waiting already`));
    }
    tokens += 1;
    const token = tokens.toString(36);
    return new Promise((resolve, reject) => {
      const timer = createTimer(options.clock);
      let attempt = 0;
      let nobodySinceMs: number | undefined;
      const end = (settle: () => void) => {
        if (!waiting.delete(token)) return;
        timer.cancel();
        question.signal.removeEventListener('abort', onAbort);
        settle();
      };
      const fail = (failure: unknown) => end(() => reject(failure));
      const onAbort = () => fail(failureOfAbort(question.signal, what));
      const send = () => {
        // While disconnected nothing is sent (the client would queue it): the reconnect asks again.
        if (!waiting.has(token) || !options.connected()) return;
        attempt += 1;
        try {
          question.send(`${options.inbox}.${token}`, attempt);
        } catch (failure) {
          fail(failure);
          return;
        }
        timer.set(REASK_INTERVAL_MS, () => {
          // Somebody received the last attempt: a silence that begins later has its own grace.
          nobodySinceMs = undefined;
          send();
        });
      };
      const onMessage = (message: Msg) => {
        if (!isNoResponders(message)) {
          end(() => resolve(message));
          return;
        }
        const nowMs = options.clock.monotonicMs();
        nobodySinceMs ??= nowMs;
        if (nowMs - nobodySinceMs >= STARTUP_GRACE_MS) fail(doesNotAnswer(question.owner));
        else timer.set(NO_RESPONDERS_INTERVAL_MS, send);
      };
      waiting.set(token, { onMessage, send, fail });
      question.signal.addEventListener('abort', onAbort, { once: true });
      send();
    });
  }

  return {
    ask,
    onMessage(message) {
      const token = message.subject.slice(options.inbox.length + 1);
      waiting.get(token)?.onMessage(message);
    },
    onReconnect() {
      for (const one of [...waiting.values()]) one.send();
    },
    close() {
      for (const one of [...waiting.values()]) {
        one.fail(new Failure('unavailable', 'this service is stopping'));
      }
    },
  };
}

function isNoResponders(message: Msg): boolean {
  return message.data.length === 0 && message.headers?.code === NO_RESPONDERS_STATUS;
}

function doesNotAnswer(owner: OwnerName): Failure {
  const hint = owner.startsWith('runtime.') ? 'is its worker running?' : 'is it running?';
  return new Failure('unavailable', `${owner} does not answer: ${hint}`);
}

interface Timer {
  /** Replaces what was set before. */
  set(ms: number, onTime: () => void): void;
  cancel(): void;
}

function createTimer(clock: Clock): Timer {
  let current: AbortController | undefined;
  return {
    set(ms, onTime) {
      current?.abort();
      const mine = new AbortController();
      current = mine;
      clock.sleep(ms, mine.signal).then(onTime, () => {
        // Aborted: replaced by a later one, or the question has ended.
      });
    },
    cancel: () => current?.abort(),
  };
}
