// `cribus prepare`: everything that the services and their servers read, for a service manager that
// starts them one by one. It starts nothing and provides no network.

import { Failure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import type { Invocation } from '../arguments.ts';
import { requireRoot } from '../require-root.ts';
import { makeDirectories } from '../stack/bring-up.ts';
import { generatedPaths, provideConfiguration } from '../stack/generated.ts';
import { openStack } from '../stack/open-stack.ts';
import { takeUpLock } from '../stack/up-lock.ts';

/** Given servers are asked whether they answer. */
const BUDGET_MS = 60_000;
/** A unit that fails takes those down that need it, and they don't come back when it does. */
const NEVER = new AbortController().signal;

export async function runPrepare(invocation: Invocation): Promise<number> {
  requireRoot('prepare', 'it writes credentials that only root may read');
  const stack = await openStack(invocation);
  await makeDirectories(stack);
  const lock = await takeUpLock(stack.paths.roots);
  if (lock === undefined) {
    throw new Failure(
      'wrong_state',
      '"cribus up" runs this stack: stop it with "cribus down" first',
    );
  }
  try {
    const { config } = await provideConfiguration({
      ...{ stack, natsUrl: undefined, redisUrl: undefined, living: 'unknown' as const },
      network: async () => '',
      ...patience(invocation),
    });
    console.log(`Prepared: ${generatedPaths(stack).services}`);
    console.log(`CRI v1 will be at unix://${config.gateway.socket}`);
  } finally {
    lock.close();
  }
  return 0;
}

function patience({ flags }: Invocation): {
  readonly signal: AbortSignal;
  readonly onWait?: (sentence: string) => void;
} {
  if (!flags.has('wait')) return { signal: systemClock.timeout(BUDGET_MS) };
  return { signal: NEVER, onWait: (sentence) => console.log(`Waiting: ${sentence}`) };
}
