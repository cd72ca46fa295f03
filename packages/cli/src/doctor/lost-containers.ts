// Containers that no record accounts for: what is still there of each, and the way to end it. The engine
// ends it, for it alone knows the processes; once its monitor and bundle are gone nobody finds them.

import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { containerPaths, handlerPaths, type Roots } from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { mountsBelow, unmountTree } from '@cribus/host/mounts.ts';
import {
  commandLine,
  identify,
  listPids,
  type ProcessIdentity,
  signalProcess,
  waitForExit,
} from '@cribus/host/processes.ts';
import { run } from '@cribus/host/spawn.ts';

export interface LostContainer {
  /** Of its handler's name. */
  readonly token: string;
  readonly id: string;
  /** Words for a person, as `its processes`. */
  readonly holds: readonly string[];
  /** Absent where the engine has no state of it. */
  readonly engine?: string;
  readonly monitor?: ProcessIdentity;
}

interface Monitor {
  readonly token: string;
  readonly id: string;
  readonly engine: string;
}

/** `runc` and `crun` keep a directory per container, runsc a `<container>_sandbox:<root container>.state`. */
const ENGINE_STATE = /^([0-9a-f]{64})(?:_sandbox:[0-9a-f]{64}\.state)?$/;
const CONTAINER_ID = /^[0-9a-f]{64}$/;
/** `delete --force` waits ten seconds for the processes. */
const ENGINE_BUDGET_MS = 30_000;
const MONITOR_BUDGET_MS = 5_000;

/** Of every handler that has a directory, whether or not the configuration still names it. */
export async function findLostContainers(
  roots: Roots,
  { runtimes }: Pick<Config, 'runtimes'>,
): Promise<LostContainer[]> {
  const found: LostContainer[] = [];
  const monitors = listPids().flatMap((pid) => {
    const monitor = monitorOf(roots, commandLine(pid));
    if (monitor === undefined) return [];
    const identity = identify(pid);
    return identity === undefined ? [] : [{ ...monitor, identity }];
  });
  const tokens = new Set([
    ...(await listDirectory(join(roots.run, 'handlers'))),
    ...monitors.map(({ token }) => token),
  ]);
  for (const token of tokens) {
    const { run: directory, engineRoot } = handlerPaths(roots, token);
    const ofEngine = new Set(
      (await listDirectory(engineRoot)).flatMap((name) => ENGINE_STATE.exec(name)?.[1] ?? []),
    );
    const ofHandler = monitors.filter((monitor) => monitor.token === token);
    const bundles = (await listDirectory(directory)).filter((name) => CONTAINER_ID.test(name));
    const configured = Object.entries(runtimes.handlers).find(
      ([name]) => subjectToken(name) === token,
    );
    for (const id of new Set([...ofEngine, ...ofHandler.map(({ id }) => id), ...bundles])) {
      const paths = containerPaths(roots, token, id);
      if (existsSync(paths.record)) continue;
      const monitor = ofHandler.find((one) => one.id === id);
      const holds = [
        ...(ofEngine.has(id) ? ['its processes'] : []),
        ...(monitor === undefined ? [] : [`monitor ${monitor.identity.pid}`]),
        ...(mountsBelow(paths.bundle).length === 0 ? [] : ['mounts']),
      ];
      if (holds.length === 0) continue;
      found.push({
        token,
        id,
        holds,
        ...(ofEngine.has(id) ? { engine: configured?.[1].engine ?? monitor?.engine ?? '' } : {}),
        ...(monitor === undefined ? {} : { monitor: monitor.identity }),
      });
    }
  }
  return found;
}

/**
 * Ends its processes and takes away what it holds on the host. Raises unavailable where its engine is
 * not known or fails; then everything stays, for a later try.
 */
export async function removeLost(roots: Roots, lost: LostContainer): Promise<void> {
  const { token, id, engine, monitor } = lost;
  const { engineRoot, exits } = handlerPaths(roots, token);
  if (engine !== undefined) await deleteByEngine({ engine, root: engineRoot, token, id });
  if (monitor !== undefined && signalProcess(monitor, 'SIGKILL')) {
    await waitForExit(monitor, systemClock.timeout(MONITOR_BUDGET_MS));
  }
  const { bundle } = containerPaths(roots, token, id);
  unmountTree(bundle);
  await removeTree(bundle);
  await rm(join(exits, id), { force: true });
}

async function deleteByEngine(what: {
  readonly engine: string;
  readonly root: string;
  readonly token: string;
  readonly id: string;
}): Promise<void> {
  if (what.engine === '') {
    const text = `its engine is not known: name it in runtimes.handlers.${what.token}`;
    throw new Failure('unavailable', text);
  }
  const { exitCode, stderr } = await run({
    command: what.engine,
    args: ['--root', what.root, 'delete', '--force', what.id],
    signal: systemClock.timeout(ENGINE_BUDGET_MS),
  });
  if (exitCode === 0) return;
  throw new Failure('unavailable', `${what.engine} delete: ${stderr.toString('utf8').trim()}`);
}

/**
 * conmon names its container's bundle on its command line, and the bundle its handler: a configuration
 * that has changed since says nothing of it. Undefined for other programs, and monitors of other stacks.
 */
export function monitorOf(
  roots: Roots,
  [program = '', ...args]: readonly string[],
): Monitor | undefined {
  const after = (option: string) => args[args.indexOf(option) + 1] ?? '';
  const bundle = after('-b');
  const handlers = join(roots.run, 'handlers');
  if (basename(program) !== 'conmon' || !bundle.startsWith(`${handlers}/`)) return undefined;
  const [token = '', id = ''] = bundle.slice(handlers.length + 1).split('/');
  return { token, id, engine: after('-r') };
}
