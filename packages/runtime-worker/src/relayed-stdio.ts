// For engines that take a container's stdio from `start` and not from `create` (runsc, for the
// containers inside a Sentry). conmon gives its pipes to `create`, and ends when it has no child left
// to wait for. So `create` runs in a wrapper that leaves a `cat` for each stream, between conmon's pipe
// and a fifo in the bundle; `start` gets the fifos. When the container closes its outputs, their cats
// end, and conmon with them. A terminal is handed to conmon by `create` itself: there the wrapper leaves
// a `cat` that waits for the worker to tell the end.

import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { writeFileAtomic } from '@cribus/host/files.ts';

/** In the bundle, by child descriptor; there is one for stdin only where conmon has one. */
const FIFOS = { 0: 'stdin', 1: 'stdout', 2: 'stderr' } as const;
/** In the bundle of a container with a terminal, in place of them. */
const HOLD = 'terminal-held';

/** The wrapper's text: the engine's create, then the relays, in the background. */
export function relayingCreate(enginePath: string): string {
  const engine = `'${enginePath.replaceAll("'", `'\\''`)}'`;
  const path = (name: string) => `"$bundle/${name}"`;
  const [stdin, stdout, stderr, hold] = [FIFOS[0], FIFOS[1], FIFOS[2], HOLD].map(path);
  return [
    '#!/bin/sh',
    'before= terminal=',
    'for word; do',
    '  if [ "$before" = --bundle ]; then bundle=$word; fi',
    '  if [ "$word" = --console-socket ]; then terminal=yes; fi',
    '  before=$word',
    'done',
    'if [ -n "$terminal" ]; then',
    `  mkfifo -m 600 ${hold} || exit $?`,
    `  ${engine} "$@" || exit $?`,
    `  cat <${hold} >/dev/null &`,
    '  exit',
    'fi',
    `mkfifo -m 600 ${stdout} ${stderr} || exit $?`,
    'if [ ! -p /dev/stdin ]; then',
    `  ${engine} "$@" || exit $?`,
    `  cat <${stdout} &`,
    `  cat <${stderr} >&2 &`,
    '  exit',
    'fi',
    // A command in the background has no stdin but one that it is given.
    'exec 3<&0 </dev/null',
    `mkfifo -m 600 ${stdin} || exit $?`,
    `${engine} "$@" 3<&- || exit $?`,
    '{',
    `  cat <${stdout} 3<&- & one=$!`,
    `  cat <${stderr} >&2 3<&- & two=$!`,
    `  cat <&3 >${stdin} & three=$!`,
    '  exec 3<&- >/dev/null 2>&1',
    '  wait $one $two',
    '  kill $three',
    '} &',
    '',
  ].join('\n');
}

/** Writes the wrapper; its path goes to conmon in place of the engine. */
export async function writeRelayingCreate(directory: string, enginePath: string): Promise<string> {
  const path = join(directory, 'create-with-relays');
  await writeFileAtomic(path, relayingCreate(enginePath), { mode: 0o700 });
  return path;
}

export interface RelayedStdio {
  /** Child number to ours, for `start`; undefined where the container has a terminal. */
  readonly fds: Readonly<Record<number, number>> | undefined;
  /** Closes ours; the engine has its own by now. */
  close(): void;
}

/** True where conmon holds the container's terminal and learns of its end by `endRelays` alone. */
export function holdsTerminal(bundle: string): boolean {
  return existsSync(join(bundle, HOLD));
}

/** Opens the container's ends. Raises wrong_state when the bundle has no fifos. */
export function openRelays(bundle: string): RelayedStdio {
  const opened: number[] = [];
  const close = () => {
    for (const fd of opened.splice(0)) closeSync(fd);
  };
  if (holdsTerminal(bundle)) return { fds: undefined, close };
  try {
    const fds: Record<number, number> = {};
    for (const [number, name] of Object.entries(FIFOS)) {
      const path = join(bundle, name);
      if (name === FIFOS[0] && !existsSync(path)) continue;
      const fd = openEnd(path, name === FIFOS[0] ? constants.O_RDONLY : constants.O_WRONLY);
      opened.push(fd);
      fds[Number(number)] = fd;
    }
    return { fds, close };
  } catch (error) {
    close();
    const why = error instanceof Error ? error.message : String(error);
    throw new Failure('wrong_state', `its streams can't be opened: ${why}`, {
      stage: 'start',
      cause: error,
    });
  }
}

/** Lets relays that still wait for the other side end: of a container that is over, or never started. */
export function endRelays(bundle: string): void {
  for (const name of [...Object.values(FIFOS), HOLD]) {
    try {
      closeSync(openSync(join(bundle, name), constants.O_RDWR | constants.O_NONBLOCK));
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
}

/** A fifo opened for reading and writing never blocks, and lets both sides in (fifo(7)). */
function openEnd(path: string, flags: number): number {
  const both = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    return openSync(path, flags);
  } finally {
    closeSync(both);
  }
}
