// `up --detach`: the same command again in a session of its own, and waiting until it is ready.

import { closeSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '@cribus/host/clock.ts';
import { spawn } from '@cribus/host/spawn.ts';
import { makeDirectories } from './bring-up.ts';
import type { Stack } from './open-stack.ts';
import { openLog } from './part-log.ts';
import { NODE_FLAGS } from './parts.ts';
import { findUp } from './up-lock.ts';

/** Tells the copy that it is the one in the background. */
export const DETACHED_VARIABLE = 'CRIBUS_UP_DETACHED';
const POLL_INTERVAL_MS = 50;

/** Shows the copy's output until it is ready (answers 0) or has failed (answers its exit code). */
export async function startDetached(stack: Stack, words: readonly string[]): Promise<number> {
  await makeDirectories(stack);
  const path = join(stack.paths.roots.log, 'up.log');
  const log = openLog(path);
  const from = statSync(path).size;
  const bundle = process.argv[1] ?? '';
  const child = spawn({
    command: process.execPath,
    args: [...NODE_FLAGS, bundle, ...words],
    env: { ...definedVariables(), [DETACHED_VARIABLE]: '1' },
    cwd: process.cwd(),
    stdout: { fd: log },
    stderr: { fd: log },
  });
  closeSync(log);
  let code: number | undefined;
  void child.exited.then((result) => {
    code = result.exitCode ?? 1;
  });
  let shown = from;
  const show = async () => {
    shown += await copyFrom(path, shown);
  };
  for (;;) {
    const holder = await findUp(stack.paths.roots);
    const ready = holder?.identity.pid === child.pid && holder.ready;
    if (ready || code !== undefined) {
      // The summary follows the announcement.
      if (ready) await systemClock.sleep(POLL_INTERVAL_MS);
      await show();
      return ready ? 0 : (code ?? 1);
    }
    await show();
    await systemClock.sleep(POLL_INTERVAL_MS);
  }
}

async function copyFrom(path: string, offset: number): Promise<number> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    if (size <= offset) return 0;
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(size - offset),
      0,
      size - offset,
      offset,
    );
    process.stdout.write(buffer.subarray(0, bytesRead));
    return bytesRead;
  } finally {
    await file.close();
  }
}

function definedVariables(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((row): row is [string, string] => row[1] !== undefined),
  );
}
