// Waiting for a stack to be ready, and saying what is missing when it isn't.

import { join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { type CriClient, createCriClient } from '../cri-client.ts';
import { lastLines } from './part-log.ts';
import type { PartStates } from './part-state.ts';
import { probeService } from './probes.ts';
import { type PartName, SERVICES } from './services.ts';

/** How long the parts of a stack may take to be ready together. */
const READY_TIMEOUT_MS = 30_000;
/** A part that fails for longer than this is no reason to keep the others from being used. */
const EVERY_PART_TIMEOUT_MS = 10_000;
const ASK_INTERVAL_MS = 50;
const LOG_LINES_SHOWN = 5;

export interface Readiness {
  readonly handlers: readonly string[];
  /** NetworkReady, with its message where it is false. */
  readonly network: { readonly ready: boolean; readonly message: string };
}

export interface ReadyOptions {
  readonly socket: string;
  readonly metricsAddress: string;
  readonly logDirectory: string;
  readonly states: () => PartStates;
  /** Instead of half a minute, for who has nothing better to do than to wait. */
  readonly timeoutMs?: number | undefined;
  readonly signal: AbortSignal;
}

/**
 * Waits until the gateway's Status says RuntimeReady and each service has started: a worker that is
 * only starting has not reported yet what ended while it was away. Raises timeout naming the part
 * that isn't ready, with the end of its log; the signal's reason when it aborts.
 */
export async function waitUntilReady(options: ReadyOptions): Promise<Readiness> {
  const client = createCriClient(options.socket);
  const timeoutMs = options.timeoutMs ?? READY_TIMEOUT_MS;
  const began = systemClock.monotonicMs();
  let last = 'it has not answered';
  try {
    while (systemClock.monotonicMs() - began < timeoutMs) {
      options.signal.throwIfAborted();
      const answer = await askOnce(client, options.signal);
      if (typeof answer !== 'string') {
        const late = systemClock.monotonicMs() - began > EVERY_PART_TIMEOUT_MS;
        if (late || (await firstUnready(options)) === undefined) return answer;
      } else {
        last = answer;
      }
      await systemClock.sleep(ASK_INTERVAL_MS, options.signal);
    }
  } finally {
    client.close();
  }
  throw await describeUnready(options, last);
}

async function askOnce(client: CriClient, signal: AbortSignal): Promise<Readiness | string> {
  try {
    const request = cri.StatusRequest.fromPartial({});
    const answer = await client.call('status', request, { timeoutMs: 2_000, signal });
    const conditions = answer.status?.conditions ?? [];
    const runtime = conditions.find((row) => row.type === 'RuntimeReady');
    if (runtime?.status !== true) return runtime?.message || 'RuntimeReady is false';
    const network = conditions.find((row) => row.type === 'NetworkReady');
    return {
      handlers: answer.runtimeHandlers.map((row) => row.name).filter((name) => name !== ''),
      network: { ready: network?.status === true, message: network?.message ?? '' },
    };
  } catch (error) {
    if (!isFailure(error, 'unavailable', 'timeout', 'cancelled', 'bug')) throw error;
    return error.message;
  }
}

/** The first service that does not say itself that it is ready. */
async function firstUnready(options: ReadyOptions): Promise<PartName | undefined> {
  const states = options.states();
  const serving = await Promise.all(
    SERVICES.map(async (name) => {
      const port = states[name]?.healthPort;
      return port !== undefined && (await probeService(port, options.metricsAddress)).serving;
    }),
  );
  return SERVICES.find((_name, index) => !serving[index]);
}

async function describeUnready(options: ReadyOptions, last: string): Promise<Failure> {
  const name = await firstUnready(options);
  if (name !== undefined) {
    const file = join(options.logDirectory, `${name}.log`);
    const lines = (await lastLines(file, LOG_LINES_SHOWN)).map((line) => `\n  ${line}`).join('');
    return new Failure(
      'timeout',
      `${name} is not ready after ${(options.timeoutMs ?? READY_TIMEOUT_MS) / 1000} s; the end of ${file}:${lines}`,
    );
  }
  return new Failure(
    'timeout',
    `cri-gateway is not ready after ${(options.timeoutMs ?? READY_TIMEOUT_MS) / 1000} s: ${last}`,
  );
}
