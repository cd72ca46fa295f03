// What a stack without pods leaves on the host, taken away: its network, cgroup, mounts and sockets.

import { readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { forgetNetwork, putNetworkBack } from '../network/put-back.ts';
import type { Stack } from './open-stack.ts';

const PUT_BACK_TIMEOUT_MS = 60_000;

/**
 * Puts the host back; the stack must be stopped and have no pods. Goes on where a step fails, and
 * answers a phrase for each thing that stays.
 */
export async function putHostBack(stack: Stack, config: Config): Promise<string[]> {
  const problems = await putNetworkBack(stack, systemClock.timeout(PUT_BACK_TIMEOUT_MS));
  await forgetNetwork(stack);
  try {
    // runsc keeps a null-netns mount in its root directory, and the workers their own trees.
    unmountTree(stack.paths.roots.run);
    await cleanRunDirectory(stack);
  } catch (error) {
    problems.push(`${stack.paths.roots.run}: ${messageOf(error)}`);
  }
  try {
    detectCgroups().remove(config.cgroups.root);
  } catch (error) {
    problems.push(`the cgroup ${config.cgroups.root}: ${messageOf(error)}`);
  }
  return problems;
}

/** Everything but the lock, which whoever calls may still hold; then the directory if it is empty. */
async function cleanRunDirectory(stack: Stack): Promise<void> {
  const { run } = stack.paths.roots;
  for (const name of readdirSync(run)) {
    if (name !== 'up.lock') await removeTree(join(run, name));
  }
  try {
    rmdirSync(run);
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY', 'EEXIST', 'EBUSY')) throw error;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
