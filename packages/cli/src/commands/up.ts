// `cribus up`: brings the stack up, keeps it up, and takes it down again in order.

import { keepMemorySmall } from '@cribus/chassis/idle-memory.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import type { Invocation } from '../arguments.ts';
import { requireRoot } from '../require-root.ts';
import { shellWord } from '../shell-word.ts';
import { bringUp, type RunningStack } from '../stack/bring-up.ts';
import { DETACHED_VARIABLE, startDetached } from '../stack/detach.ts';
import { metricsAddresses } from '../stack/metrics-addresses.ts';
import { openStack, type Stack } from '../stack/open-stack.ts';
import { countPods, hasPods, removePods } from '../stack/pods.ts';
import { putHostBack } from '../stack/put-host-back.ts';

/** A second Ctrl-C within this time leaves the pods of an ephemeral stack running. */
const SECOND_THOUGHT_MS = 10_000;
/** A terminal and npm may each deliver the same Ctrl-C. */
const SAME_KEYPRESS_MS = 300;

export async function runUp(invocation: Invocation): Promise<number> {
  requireRoot('up', 'it makes namespaces, mounts and networks for pods');
  const stack = await openStack(invocation);
  if (invocation.flags.has('detach') && process.env[DETACHED_VARIABLE] === undefined) {
    return startDetached(stack, process.argv.slice(2));
  }
  const signals = listenForSignals();
  const say = (line: string) => console.log(line);
  say(`Starting cribus (${stack.directory ?? 'the system stack'}).`);
  const running = await start({ invocation, stack, say, signal: signals.first });
  if (running === undefined) return 130;
  try {
    const tour = invocation.flags.has('tour');
    summarize(running, { stack, tour, say });
    if (tour) await showTour(stack, running, signals.first);
    if (tour && !signals.first.aborted)
      say(`Serving CRI until Ctrl-C; logs in ${running.config.roots.log}`);
    await keepMemorySmall(systemClock, signals.first).catch(() => undefined);
    await untilAborted(signals.first);
  } finally {
    await end({ invocation, stack, running, signals, say });
  }
  return 0;
}

interface Signals {
  /** Aborts at the first SIGINT, SIGTERM or SIGHUP; its reason is the signal's name. */
  readonly first: AbortSignal;
  /** Aborts at a second SIGINT that follows. */
  readonly second: AbortSignal;
}

function listenForSignals(): Signals {
  const first = new AbortController();
  const second = new AbortController();
  let firstAtMs = 0;
  const onSignal = (name: string) => {
    if (!first.signal.aborted) {
      firstAtMs = systemClock.monotonicMs();
      first.abort(new Failure('cancelled', name));
    } else if (name === 'SIGINT' && systemClock.monotonicMs() - firstAtMs > SAME_KEYPRESS_MS) {
      second.abort(new Failure('cancelled', name));
    }
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal);
  return { first: first.signal, second: second.signal };
}

async function start(options: {
  readonly invocation: Invocation;
  readonly stack: Stack;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<RunningStack | undefined> {
  const { invocation, stack, say, signal } = options;
  const { nats: natsUrl, redis: redisUrl } = invocation.values;
  try {
    return await bringUp({ stack, natsUrl, redisUrl, say, signal });
  } catch (error) {
    if (!signal.aborted) throw error;
    say('Interrupted before it was ready; everything that was started is stopped.');
    return undefined;
  }
}

/** Before the tour only what it doesn't say itself. */
function summarize(running: RunningStack, options: Summary): void {
  const { config, readiness } = running;
  const { stack, tour, say } = options;
  const root = stack.directory === undefined ? '' : ` --root ${shellWord(stack.directory)}`;
  say(`Ready: CRI v1 at unix://${config.gateway.socket}`);
  if (!readiness.network.ready) say(`  network   not ready: ${readiness.network.message}`);
  if (tour) return;
  say(`  handlers  ${readiness.handlers.join(', ')}`);
  say(`  metrics   ${metricsAddresses(config)}`);
  say(`  logs      ${config.roots.log}`);
  say(`  look      bin/cribus status${root}`);
  say(`  stop      ${stopHint(root)}`);
}

interface Summary {
  readonly stack: Stack;
  readonly tour: boolean;
  readonly say: (line: string) => void;
}

function stopHint(root: string): string {
  const how = `bin/cribus down${root} (containers keep running; --pods ends them)`;
  return process.env[DETACHED_VARIABLE] === undefined ? `Ctrl-C, or ${how}` : how;
}

async function showTour(stack: Stack, running: RunningStack, signal: AbortSignal): Promise<void> {
  const { runTour } = await import('../tour/run-tour.ts');
  try {
    const print = (line: string) => console.log(line);
    await runTour({ stack, config: running.config, image: undefined, print, signal });
  } catch (error) {
    if (signal.aborted) return;
    // The stack is up and serves, which matters more than its tour.
    console.error(`The tour stopped: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) return done();
    signal.addEventListener('abort', () => done(), { once: true });
  });
}

async function end(options: {
  readonly invocation: Invocation;
  readonly stack: Stack;
  readonly running: RunningStack;
  readonly signals: Signals;
  readonly say: (line: string) => void;
}): Promise<void> {
  const { invocation, stack, running, signals, say } = options;
  if (invocation.flags.has('ephemeral')) await endPods(running, signals, say);
  await running.stop();
  const left = await hasPods(stack);
  if (invocation.flags.has('ephemeral') && !left) {
    for (const problem of await putHostBack(stack, running.config)) say(`Left behind: ${problem}`);
  }
  running.release();
  say(
    left ? 'Stopped; containers keep running, and the next "cribus up" adopts them.' : 'Stopped.',
  );
}

async function endPods(
  running: RunningStack,
  signals: Signals,
  say: (line: string) => void,
): Promise<void> {
  const socket = running.config.gateway.socket;
  const count = await countPods(socket, systemClock.timeout(5_000)).catch(() => undefined);
  const interrupted = (signals.first.reason as Error | undefined)?.message === 'SIGINT';
  if (interrupted && count !== 0) {
    const what = count === undefined ? 'All pods' : counted(count);
    say(`${what} will be stopped and removed in 10 s; Ctrl-C again leaves them running.`);
    await systemClock.sleep(SECOND_THOUGHT_MS, signals.second).catch(() => undefined);
  }
  if (signals.second.aborted) {
    say('The pods are left running.');
    return;
  }
  try {
    const { removed, problems } = await removePods(socket, signals.second);
    say(`Stopped and removed ${counted(removed)}.`);
    for (const problem of problems) say(`Not removed: ${problem}`);
  } catch (error) {
    say(`The pods could not be removed: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function counted(pods: number): string {
  return `${pods} ${pods === 1 ? 'pod' : 'pods'}`;
}
