// For engines that take a container's stdio from `start` and not from `create` (runsc, for the
// containers inside a Sentry). conmon gives its pipes to `create`, and takes their closing for the
// container's end; so `create` runs in a wrapper that leaves a sleeping process which holds them, and
// `start` is given the same pipes, reopened from that process.

import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { identify, type ProcessIdentity, signalProcess } from '@cribus/host/processes.ts';

/** In the bundle. */
const PID_FILE = 'stdio-holder';

/** The wrapper's text: the engine's create, then the holder, in the background. */
export function holderScript(enginePath: string): string {
  const engine = `'${enginePath.replaceAll("'", `'\\''`)}'`;
  return [
    '#!/bin/sh',
    'before=',
    'for word; do',
    '  if [ "$before" = --bundle ]; then bundle=$word; fi',
    '  before=$word',
    'done',
    `${engine} "$@" || exit $?`,
    'sleep infinity &',
    `echo $! > "$bundle/${PID_FILE}"`,
    '',
  ].join('\n');
}

/** Writes the wrapper; its path goes to conmon in place of the engine. */
export async function writeHolderScript(directory: string, enginePath: string): Promise<string> {
  const path = join(directory, 'create-with-stdio');
  await writeFileAtomic(path, holderScript(enginePath), { mode: 0o700 });
  return path;
}

export interface HeldStdio {
  /** Child number to ours. */
  readonly fds: Readonly<Record<number, number>>;
  /** Closes ours; the holder goes on. */
  close(): void;
  /** Ends the holder. */
  release(): void;
}

/** Reopens the pipes. Raises wrong_state when the holder is gone, and with it the stdio. */
export async function openHeldStdio(bundle: string): Promise<HeldStdio> {
  const holder = await findHolder(bundle);
  if (holder === undefined) {
    throw new Failure('wrong_state', 'the process that held its output is gone', {
      stage: 'start',
    });
  }
  const opened: number[] = [];
  const open = (number: number, flags: number) => {
    const fd = openSync(`/proc/${holder.pid}/fd/${number}`, flags);
    opened.push(fd);
    return fd;
  };
  const close = () => {
    for (const fd of opened.splice(0)) closeSync(fd);
  };
  try {
    const fds = {
      0: open(0, constants.O_RDONLY | constants.O_NONBLOCK),
      1: open(1, constants.O_WRONLY),
      2: open(2, constants.O_WRONLY),
    };
    return { fds, close, release: () => void signalProcess(holder, 'SIGKILL') };
  } catch (error) {
    close();
    throw error;
  }
}

/** Ends the holder of a container that is taken away unstarted. */
export async function releaseHeldStdio(bundle: string): Promise<void> {
  const holder = await findHolder(bundle);
  if (holder !== undefined) signalProcess(holder, 'SIGKILL');
}

/** The pid may be another's by now: the holder's command line says what it is. */
async function findHolder(bundle: string): Promise<ProcessIdentity | undefined> {
  const pid = Number((await readFileIfExists(join(bundle, PID_FILE)))?.toString('utf8').trim());
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  const holder = identify(pid);
  const line = (await readFileIfExists(`/proc/${pid}/cmdline`))?.toString('utf8');
  return line === 'sleep\0infinity\0' ? holder : undefined;
}
