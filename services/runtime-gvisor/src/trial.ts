// Which platform and which network stack of runsc run on this host: found by running a container
// that ends at once, and remembered for this binary and this kernel.

import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '@cribus/chassis/log.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { readFileIfExists, removeTree, writeFileAtomic } from '@cribus/host/files.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { createNamespaces, removeNamespacePin } from '@cribus/host/namespaces.ts';
import { resolveCommand, run } from '@cribus/host/spawn.ts';

export interface Mode {
  readonly platform: string;
  readonly network: 'sandbox' | 'host';
}

export interface TrialOptions {
  readonly enginePath: string;
  readonly args: readonly string[];
  /** Empty: found by trial; kvm only when a person asks for it, for it may hang a host. */
  readonly platform: string;
  readonly network: 'auto' | 'sandbox' | 'host';
  readonly cacheKey: string;
  readonly cacheFile: string;
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A container that ends at once takes some 300 ms; one that hangs is given up. */
const TRIAL_BUDGET_MS = 10_000;
const PROGRAM = 'catatonit';

/** What is tried, the better first; what a person has set is not tried around. */
export function candidates(options: Pick<TrialOptions, 'platform' | 'network'>): Mode[] {
  const platforms = options.platform === '' ? ['systrap', 'ptrace'] : [options.platform];
  const networks = options.network === 'auto' ? (['sandbox', 'host'] as const) : [options.network];
  return networks.flatMap((network) => platforms.map((platform) => ({ platform, network })));
}

/** The first mode that runs. Raises unavailable with what the last one said when none does. */
export async function findWorkingMode(options: TrialOptions): Promise<Mode> {
  const key = `${options.cacheKey}|${options.platform}|${options.network}`;
  const known = await readCache(options.cacheFile, key);
  if (known !== undefined) return known;
  const said: string[] = [];
  for (const mode of candidates(options)) {
    const failure = await tryMode(options, mode);
    if (failure === undefined) {
      options.log.info({ ...mode }, 'this mode of runsc runs here');
      await writeFileAtomic(options.cacheFile, JSON.stringify({ key, mode }));
      return mode;
    }
    options.log.info({ ...mode, failure }, 'this mode of runsc does not run here');
    said.push(`${mode.platform}/${mode.network}: ${failure}`);
  }
  throw new Failure('unavailable', `${options.enginePath} does not run here: ${said.join('; ')}`);
}

async function readCache(file: string, key: string): Promise<Mode | undefined> {
  const text = (await readFileIfExists(file))?.toString('utf8');
  if (text === undefined) return undefined;
  try {
    const cached = JSON.parse(text) as { readonly key: string; readonly mode: Mode };
    return cached.key === key ? cached.mode : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Undefined when it runs, else what runsc said. */
async function tryMode(options: TrialOptions, mode: Mode): Promise<string | undefined> {
  const directory = join(options.directory, `trial-${randomUUID()}`);
  const net = join(directory, 'net');
  const id = `trial-${randomUUID()}`;
  const root = join(directory, 'root');
  const global = [
    ...['--root', root, '--log', join(directory, 'log')],
    ...[`--platform=${mode.platform}`, `--network=${mode.network}`, '--ignore-cgroups'],
    ...options.args,
  ];
  try {
    await writeBundle(directory, net);
    createNamespaces({ pins: { net } });
    const limits = [options.signal, options.clock.timeout(TRIAL_BUDGET_MS)];
    const result = await withJoinedSignal(limits, (signal) =>
      run({
        command: options.enginePath,
        args: [...global, 'run', '--bundle', directory, id],
        signal,
      }),
    );
    if (result.exitCode === 0) return undefined;
    const words = `${result.stderr}${result.stdout}`.trim().split('\n').at(-1);
    return words || `it ended with code ${result.exitCode}`;
  } catch (error) {
    if (options.signal.aborted) throw error;
    if (isErrno(error, 'ENOENT')) return String(error);
    return `no answer within ${TRIAL_BUDGET_MS / 1000} s`;
  } finally {
    await run({
      command: options.enginePath,
      args: [...global, 'delete', '--force', id],
      signal: options.clock.timeout(TRIAL_BUDGET_MS),
    }).catch(() => undefined);
    removeNamespacePin(net);
    unmountTree(directory);
    await removeTree(directory);
  }
}

async function writeBundle(directory: string, net: string): Promise<void> {
  const rootfs = join(directory, 'rootfs');
  await mkdir(join(rootfs, 'proc'), { recursive: true, mode: 0o700 });
  await mkdir(join(directory, 'root'), { mode: 0o700 });
  await copyFile(resolveCommand(PROGRAM), join(rootfs, PROGRAM));
  await rm(join(directory, 'log'), { force: true });
  const spec = {
    ociVersion: '1.0.2',
    process: {
      user: { uid: 0, gid: 0 },
      args: [`/${PROGRAM}`, '--version'],
      env: ['PATH=/'],
      cwd: '/',
    },
    root: { path: rootfs, readonly: true },
    mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
    linux: { namespaces: [{ type: 'network', path: net }, { type: 'pid' }, { type: 'mount' }] },
  };
  await writeFile(join(directory, 'config.json'), JSON.stringify(spec));
}
