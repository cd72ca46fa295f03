// File names as an archive has them: bytes, one character each, for no encoding is sure.

import { readdir } from 'node:fs/promises';
import { isErrno } from '@cribus/host/errno.ts';

/** The names in a directory, sorted; none where there is no directory. */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    const names = await readdir(Buffer.from(directory, 'latin1'), { encoding: 'buffer' });
    return names.map((name) => name.toString('latin1')).sort();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

export function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

export function utf8(text: string): string {
  return Buffer.from(text, 'latin1').toString('utf8');
}
