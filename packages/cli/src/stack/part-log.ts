// The log file of a part: appended to, and never larger than a bound for long.

import { existsSync, openSync, renameSync, statSync } from 'node:fs';
import { copyFile, open, stat, truncate } from 'node:fs/promises';
import { isErrno } from '@cribus/host/errno.ts';

/** One older log is kept beside it (`.1`), so a part has at most about twice this. */
const LOG_BYTES_MAX = 10 * 1024 * 1024;

/** Opens it for appending, setting an overlong one aside first. */
export function openLog(path: string): number {
  if (existsSync(path) && statSync(path).size > LOG_BYTES_MAX) renameSync(path, `${path}.1`);
  return openSync(path, 'a', 0o600);
}

/** Sets an overlong log of a running part aside: copied and emptied, since the part has it open. */
export async function boundLog(path: string): Promise<void> {
  try {
    if ((await stat(path)).size <= LOG_BYTES_MAX) return;
    await copyFile(path, `${path}.1`);
    await truncate(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

/** The last lines of a log, each cut to 100 columns; none where there is no log. */
export async function lastLines(path: string, count: number): Promise<string[]> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
  try {
    const { size } = await file.stat();
    const length = Math.min(size, 16 * 1024);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    const lines = buffer.toString('utf8').trimEnd().split('\n');
    return lines.slice(-count).map((line) => (line.length > 98 ? `${line.slice(0, 95)}...` : line));
  } finally {
    await file.close();
  }
}
