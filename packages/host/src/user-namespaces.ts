// User namespaces, and the namespaces that belong to one. A process with threads can't make a user
// namespace (unshare(2)), and the others must be made inside it, so a small process does both and
// waits until its namespaces are pinned: unshare(1) and cat(1), which every Debian has.

import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { isErrno, systemError } from './errno.ts';
import {
  furnishNamespaces,
  isNamespacePin,
  NAMESPACE_KINDS,
  type NamespacePins,
  pinNamespace,
  removeNamespacePin,
  sysctlPath,
} from './namespaces.ts';
import { type Child, run, spawn } from './spawn.ts';

export interface IdMapping {
  readonly containerId: number;
  readonly hostId: number;
  readonly length: number;
}

export interface IdMappings {
  readonly uids: readonly IdMapping[];
  readonly gids: readonly IdMapping[];
}

export interface CreateUserNamespaceOptions {
  /** Paths (files, created here) to pin each wanted namespace at. */
  readonly pins: NamespacePins & { readonly user: string };
  readonly mappings: IdMappings;
  /** Set in the new UTS namespace; leave it out where there is none. */
  readonly hostname?: string;
  /** Written by the namespace's own root (names with dots): the host's may not write IPC's. */
  readonly sysctls?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** /proc/sys is written by a shell, for only a process of one thread enters a user namespace. */
const WRITE_SYSCTLS =
  'while [ $# -gt 0 ]; do printf %s "$2" >"/proc/sys/$1" || { echo "$1=$2"; exit 1; }; shift 2; done';

/**
 * Makes a user namespace with these mappings and the other wanted namespaces inside it, and pins
 * them; as createNamespaces for the rest. On a failure nothing stays. Throws with an errno code and
 * the step, or the signal's reason; EINVAL or EPERM of `uid_map` for mappings that the kernel refuses
 * (user_namespaces(7)).
 */
export async function createUserNamespace(options: CreateUserNamespaceOptions): Promise<void> {
  const { pins, mappings, signal } = options;
  const kinds = ['user', ...NAMESPACE_KINDS.filter((kind) => pins[kind] !== undefined)] as const;
  for (const kind of kinds) {
    const pin = pins[kind] ?? '';
    if (isNamespacePin(pin)) throw systemError('mount', 'EEXIST', `'${pin}' is a pin already`);
  }
  const pinned: string[] = [];
  try {
    await withHolder(kinds, signal, (pid) => {
      writeMap(`/proc/${pid}/uid_map`, mappings.uids);
      writeMap(`/proc/${pid}/gid_map`, mappings.gids);
      for (const kind of kinds) {
        const pin = pins[kind] ?? '';
        pinned.push(pin);
        pinNamespace(`/proc/${pid}/ns/${kind}`, pin);
      }
    });
    furnishNamespaces(pins, options.hostname);
    await writeSysctls(options);
  } catch (error) {
    for (const pin of pinned) removeNamespacePin(pin);
    throw error;
  }
}

/** Runs `work` while a process lives in new namespaces of these kinds; it is gone afterwards. */
async function withHolder(
  kinds: readonly string[],
  signal: AbortSignal,
  work: (pid: number) => void,
): Promise<void> {
  signal.throwIfAborted();
  const flags = kinds.map((kind) => `--${kind}`);
  const holder = spawn({
    command: 'unshare',
    args: [...flags, 'cat'],
    stdin: 'pipe',
    stdout: 'pipe',
  });
  const end = () => holder.kill('SIGKILL', 'group');
  signal.addEventListener('abort', end);
  try {
    await firstEcho(holder);
    signal.throwIfAborted();
    work(holder.pid);
  } finally {
    signal.removeEventListener('abort', end);
    end();
    holder.stdout?.destroy();
    holder.stdin?.destroy();
    await holder.exited;
  }
}

/** cat(1) runs only once its namespaces are made. */
async function firstEcho(holder: Child): Promise<void> {
  const { stdin, stdout } = holder;
  if (stdin === undefined || stdout === undefined) throw new Error('the holder has no pipes');
  const heard = new Promise<void>((resolve) => {
    stdout.once('data', () => resolve());
  });
  // A holder that ended already breaks the pipe; its exit tells why.
  stdin.on('error', () => undefined);
  stdin.write('\n');
  const ended = holder.exited.then(({ stderr }) => {
    const why = stderr.toString('utf8').trim() || 'its helper ended';
    throw systemError('unshare', errnoOf(why), why);
  });
  await Promise.race([heard, ended]);
}

/** unshare(1) says ENOSPC where user.max_user_namespaces (or another maximum) is reached. */
function errnoOf(text: string): string {
  return /No space left on device/.test(text) ? 'ENOSPC' : 'EPERM';
}

function writeMap(path: string, mappings: readonly IdMapping[]): void {
  const lines = mappings.map((one) => `${one.containerId} ${one.hostId} ${one.length}\n`).join('');
  const fd = openSync(path, constants.O_WRONLY);
  try {
    // In one write(2): the kernel takes the map only once.
    writeSync(fd, lines);
  } catch (error) {
    if (!isErrno(error, 'EINVAL', 'EPERM')) throw error;
    const name = path.slice(path.lastIndexOf('/') + 1);
    throw systemError(
      'write',
      error instanceof Error && isErrno(error, 'EPERM') ? 'EPERM' : 'EINVAL',
      `${name} ${lines.trim()}`,
    );
  } finally {
    closeSync(fd);
  }
}

async function writeSysctls(options: CreateUserNamespaceOptions): Promise<void> {
  const sysctls = Object.entries(options.sysctls ?? {});
  if (sysctls.length === 0) return;
  const { user, net, ipc } = options.pins;
  const { exitCode, stdout, stderr } = await run({
    command: 'nsenter',
    args: [
      `--user=${user}`,
      ...(net === undefined ? [] : [`--net=${net}`]),
      ...(ipc === undefined ? [] : [`--ipc=${ipc}`]),
      '--setuid=0',
      '--setgid=0',
      'sh',
      '-c',
      WRITE_SYSCTLS,
      'sh',
      ...sysctls.flatMap(([name, value]) => [sysctlPath(name), value]),
    ],
    signal: options.signal,
  });
  if (exitCode === 0) return;
  const which = stdout.toString('utf8').trim() || stderr.toString('utf8').trim();
  throw systemError('write', 'EINVAL', `sysctl ${which}`);
}
