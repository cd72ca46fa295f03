// For engines that take a container's stdio from `start` and not from `create` (runsc, for the
// containers inside a Sentry). conmon gives its pipes to `create`, and ends when it has no child left
// to wait for. So `create` runs in a wrapper that leaves a `cat` for each output, from a fifo in the
// bundle to conmon's pipe; `start` gets the fifos. When the container closes its outputs, the cats
// end, and conmon with them.

import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { writeFileAtomic } from '@cribus/host/files.ts';

/** In the bundle, by child descriptor. */
const FIFOS = { 1: 'stdout', 2: 'stderr' } as const;

/** The wrapper's text: the engine's create, then the relays, in the background. */
export function relayingCreate(enginePath: string): string {
  const engine = `'${enginePath.replaceAll("'", `'\\''`)}'`;
  return [
    '#!/bin/sh',
    'before=',
    'for word; do',
    '  if [ "$before" = --bundle ]; then bundle=$word; fi',
    '  before=$word',
    'done',
    `mkfifo -m 600 "$bundle/${FIFOS[1]}" "$bundle/${FIFOS[2]}" || exit $?`,
    `${engine} "$@" || exit $?`,
    `cat <"$bundle/${FIFOS[1]}" &`,
    `cat <"$bundle/${FIFOS[2]}" >&2 &`,
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
  /** Child number to ours, for `start`. */
  readonly fds: Readonly<Record<number, number>>;
  /** Closes ours; the engine has its own by now. */
  close(): void;
}

/** Opens the writing ends. Raises wrong_state when the bundle has no fifos. */
export function openRelays(bundle: string): RelayedStdio {
  const opened: number[] = [];
  const close = () => {
    for (const fd of opened.splice(0)) closeSync(fd);
  };
  try {
    const fds: Record<number, number> = {};
    for (const [number, name] of Object.entries(FIFOS)) {
      const fd = openWriter(join(bundle, name));
      opened.push(fd);
      fds[Number(number)] = fd;
    }
    return { fds, close };
  } catch (error) {
    close();
    const why = error instanceof Error ? error.message : String(error);
    throw new Failure('wrong_state', `its output can't be opened: ${why}`, {
      stage: 'start',
      cause: error,
    });
  }
}

/** Lets relays that still wait for a writer end: of a container that is over, or never started. */
export function endRelays(bundle: string): void {
  for (const name of Object.values(FIFOS)) {
    try {
      closeSync(openSync(join(bundle, name), constants.O_RDWR | constants.O_NONBLOCK));
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
}

/** A fifo opened for reading and writing never blocks, and lets both sides in (fifo(7)). */
function openWriter(path: string): number {
  const both = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    return openSync(path, constants.O_WRONLY);
  } finally {
    closeSync(both);
  }
}
