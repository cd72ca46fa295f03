// What drivers of every family need of an engine's binary: where it is, which it is, and what its log
// lines say.

import { existsSync } from 'node:fs';
import { Failure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { resolveCommand } from '@cribus/host/spawn.ts';

/** The absolute path of an engine. Raises unavailable naming it where it is not there. */
export function findEngine(engine: string): string {
  try {
    const path = resolveCommand(engine);
    if (existsSync(path)) return path;
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  throw new Failure('unavailable', `engine ${engine} is not installed on this host`);
}

/** The version in what `--version` prints, as 1.1.5+ds1 or release-20260803.0. */
export function versionOf(text: string): string {
  return /version\s+(\S+)/.exec(text)?.[1] ?? 'unknown';
}

/** The messages of JSON log lines on one line, or the text as it is. */
export function readableOutput(output: string): string {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  const messages = lines.map((line) => {
    const found = /"msg":"((?:[^"\\]|\\.)*)"/.exec(line)?.[1];
    return found === undefined ? line : (JSON.parse(`"${found}"`) as string);
  });
  return messages.join('; ').trim();
}
