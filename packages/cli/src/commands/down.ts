// `cribus down`: stops the stack wherever its `up` runs; with --pods its pods too, and puts the host
// back as it was.

import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Failure } from '@cribus/contracts/failure.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { listDirectory, readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { signalProcess, waitForExit } from '@cribus/host/processes.ts';
import type { Invocation } from '../arguments.ts';
import { requireRoot } from '../require-root.ts';
import { bringUp } from '../stack/bring-up.ts';
import { currentConfig, generatedPaths, urlsGiven } from '../stack/generated.ts';
import { openStack, type Stack } from '../stack/open-stack.ts';
import { readLivingParts, writePartStates } from '../stack/part-state.ts';
import { hasPods, removePods } from '../stack/pods.ts';
import { putHostBack } from '../stack/put-host-back.ts';
import { stopParts } from '../stack/supervisor.ts';
import { refuseUnderUnits } from '../stack/units.ts';
import { findUp, takeUpLock } from '../stack/up-lock.ts';

/** `up` gives each of five groups of parts ten seconds and ten more after SIGKILL. */
const UP_STOP_TIMEOUT_MS = 110_000;
const REMOVE_TIMEOUT_MS = 10 * 60_000;
/** Of a stack that is started to remove its pods: a slow machine must not keep what it can't use. */
const READY_TIMEOUT_MS = 5 * 60_000;

export async function runDown(invocation: Invocation): Promise<number> {
  requireRoot('down', 'it ends processes of root');
  const stack = await openStack(invocation);
  await refuseUnderUnits(stack);
  const say = (line: string) => console.log(line);
  const pods = invocation.flags.has('pods');
  const problems = pods ? await endPods(stack, say) : [];
  const stopped = await stopStack(stack, say);
  if (pods && problems.length === 0) problems.push(...(await putBackWithoutPods(stack)));
  for (const problem of problems) console.error(`Left behind: ${problem}`);
  if (problems.length > 0) return 1;
  if (pods) say('Stopped; no pod is left, and the host is as it was.');
  else say(stopped ? 'Stopped; containers keep running.' : 'Nothing of this stack was running.');
  return 0;
}

/** Containers stand on what would be put back, and a kubelet makes a pod anew that it misses. */
async function putBackWithoutPods(stack: Stack): Promise<string[]> {
  // What was set aside as broken has no record any more, and nothing stands on it.
  const directories = await listDirectory(stack.paths.sandboxes);
  const left = directories.filter((id) =>
    existsSync(sandboxPaths(stack.paths.roots, id).record),
  ).length;
  if (left === 0) return putBack(stack);
  const what = left === 1 ? 'a pod that was' : `${left} pods that were`;
  return [`${what} made meanwhile: stop who makes them (systemctl stop kubelet), and try again`];
}

/** Removes every pod, by the running stack or by one that is started for it. */
async function endPods(stack: Stack, say: (line: string) => void): Promise<string[]> {
  if (!(await hasPods(stack))) return [];
  const signal = systemClock.timeout(REMOVE_TIMEOUT_MS);
  const up = await findUp(stack.paths.roots);
  const config = await currentConfig(stack);
  if (up !== undefined) return report(await removePods(config.gateway.socket, signal), say);
  say('The stack is started for a moment, to stop and remove its pods.');
  return keepingConfiguration(stack, async () => {
    const running = await bringUp({
      ...{ stack: onRemovalSocket(stack), ...urlsGiven(config), say, signal },
      readyTimeoutMs: READY_TIMEOUT_MS,
    });
    try {
      return report(await removePods(running.config.gateway.socket, signal), say);
    } finally {
      await running.stop();
      running.release();
    }
  });
}

/** Where no kubelet finds it: one that did would make the pods anew while they are removed. */
export function onRemovalSocket(stack: Stack): Stack {
  const gateway = { ...stack.config.gateway, socket: stack.paths.removalSocket };
  return { ...stack, config: { ...stack.config, gateway } };
}

/** What is generated tells other commands which socket to ask, also where pods stay. */
async function keepingConfiguration<T>(stack: Stack, work: () => Promise<T>): Promise<T> {
  const file = generatedPaths(stack).services;
  const text = await readFileIfExists(file);
  try {
    return await work();
  } finally {
    if (text === undefined) await rm(file, { force: true });
    else await writeFileAtomic(file, text, { mode: 0o600 });
  }
}

/** Under the lock, so that no `up` starts in between. */
async function putBack(stack: Stack): Promise<string[]> {
  const config = await currentConfig(stack);
  if (!existsSync(stack.paths.roots.run)) return putHostBack(stack, config);
  const lock = await takeUpLock(stack.paths.roots);
  if (lock === undefined) return ['everything: another "cribus up" has just started'];
  try {
    return await putHostBack(stack, config);
  } finally {
    lock.close();
  }
}

function report(removal: Awaited<ReturnType<typeof removePods>>, say: (line: string) => void) {
  say(`Stopped and removed ${removal.removed} ${removal.removed === 1 ? 'pod' : 'pods'}.`);
  return [...removal.problems];
}

/** Ends the running `up`, or what a killed one left; false when there was neither. */
async function stopStack(stack: Stack, say: (line: string) => void): Promise<boolean> {
  const { roots } = stack.paths;
  const up = await findUp(roots);
  if (up !== undefined) {
    const { pid } = up.identity;
    signalProcess(up.identity, 'SIGTERM');
    try {
      await waitForExit(up.identity, systemClock.timeout(UP_STOP_TIMEOUT_MS));
    } catch (error) {
      if (!(error instanceof Error && error.name === 'TimeoutError')) throw error;
      throw new Failure('timeout', `"cribus up" (pid ${pid}) does not end; its log says why`);
    }
  }
  const states = await readLivingParts(roots);
  const orphans = Object.keys(states).length > 0;
  if (orphans) {
    await stopParts({ states, say });
    await writePartStates(roots, {});
  }
  return up !== undefined || orphans;
}
