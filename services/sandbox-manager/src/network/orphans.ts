// Plugins that a manager left running when it was killed. They go on by themselves: an ADD that ends
// after our DEL would leave an address and a link that nobody frees.

import { Failure } from '@cribus/contracts/failure.ts';
import { listByEnvironment, signalProcess, waitForExit } from '@cribus/host/processes.ts';

/** Each round finds only what was started while the one before ran. */
const ROUNDS_MAX = 10;

/**
 * Kills every plugin that runs for this sandbox, with what it started (CNI specification, section 2:
 * CNI_CONTAINERID is in the environment, and inherited). A DEL is owed afterwards.
 */
export async function endOrphanedPlugins(sandboxId: string, signal: AbortSignal): Promise<void> {
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const orphans = listByEnvironment('CNI_CONTAINERID', sandboxId);
    if (orphans.length === 0) return;
    for (const orphan of orphans) signalProcess(orphan, 'SIGKILL');
    for (const orphan of orphans) await waitForExit(orphan, signal);
  }
  throw new Failure('wrong_state', `sandbox ${sandboxId}: its network plugins can't be ended`);
}
