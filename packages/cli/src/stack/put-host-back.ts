// What a stack without pods leaves on the host, taken away: its network, cgroup, mounts and sockets.

import { join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { removeLeftSocket } from '@cribus/host/sockets.ts';
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
    // A gateway that was killed had no time for it.
    const { cadvisor_socket: socket } = config.kubelet;
    if (socket !== '') await removeLeftSocket(socket);
  } catch (error) {
    problems.push(`${config.kubelet.cadvisor_socket}: ${messageOf(error)}`);
  }
  try {
    detectCgroups().remove(config.cgroups.root);
  } catch (error) {
    problems.push(`the cgroup ${config.cgroups.root}: ${messageOf(error)}`);
  }
  return problems;
}

/** The lock goes last: whoever calls holds it. */
async function cleanRunDirectory(stack: Stack): Promise<void> {
  const { run } = stack.paths.roots;
  const names = await listDirectory(run);
  for (const name of names) if (name !== 'up.lock') await removeTree(join(run, name));
  await removeTree(run);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
