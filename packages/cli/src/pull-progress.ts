// What a person sees while an image is pulled: how many bytes came, of how many. CRI's PullImage says
// nothing until its end, so the image service's own counters are read.

import { get } from 'node:http';
import type { Config } from '@cribus/chassis/config.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { size } from './table.ts';

/** A short pull says nothing but its end. */
const INTERVAL_MS = 2_000;
const ANSWER_BYTES_MAX = 1024 * 1024;

interface Counters {
  readonly received: number;
  readonly expected: number;
}

/**
 * Says every two seconds what came since the call, until the signal aborts. Pulls of others that run
 * at the same time are counted with it.
 */
export async function showPullProgress(options: {
  readonly config: Config;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { config, say, signal } = options;
  const began = systemClock.monotonicMs();
  const before = await readCounters(config);
  for (;;) {
    await systemClock.sleep(INTERVAL_MS, signal).catch(() => undefined);
    if (signal.aborted) return;
    const now = await readCounters(config);
    if (signal.aborted) return;
    const seconds = Math.round((systemClock.monotonicMs() - began) / 1000);
    const bytes =
      before === undefined || now === undefined
        ? ''
        : `, ${shown(now.received - before.received)} of ${shown(now.expected - before.expected)}`;
    say(`  ${seconds} s${bytes}`);
  }
}

function shown(bytes: number): string {
  return size(BigInt(Math.max(0, Math.round(bytes))));
}

/** Undefined where the service doesn't answer at once. */
function readCounters(config: Config): Promise<Counters | undefined> {
  const { address, ports } = config.metrics;
  return new Promise((done) => {
    const options = { host: address, port: ports['image-service'] ?? 0, path: '/metrics' };
    const request = get({ ...options, timeout: 1_000, agent: false }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => {
        if (text.length < ANSWER_BYTES_MAX) text += chunk.toString('utf8');
      });
      response.on('end', () => done(parseCounters(text)));
      response.on('error', () => done(undefined));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => done(undefined));
  });
}

/** Reads both counters from Prometheus' text format. */
export function parseCounters(text: string): Counters | undefined {
  const value = (name: string) =>
    new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text)?.[1];
  const received = value('cribus_pull_bytes_total');
  const expected = value('cribus_pull_expected_bytes_total');
  if (received === undefined || expected === undefined) return undefined;
  return { received: Number(received), expected: Number(expected) };
}
