// Budgets of tests on a machine that others keep busy at the same time.

import { availableParallelism, loadavg } from 'node:os';

/** What a suite of these tests itself puts on each core at times. */
const OWN_LOAD = 2;

/** A budget in ms, as much longer as more programs want the cores than the tests alone would. */
export function patient(budgetMs: number): number {
  const [lastMinute = 0] = loadavg();
  return budgetMs * Math.max(1, lastMinute / (OWN_LOAD * availableParallelism()));
}
