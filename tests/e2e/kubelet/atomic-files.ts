// The files of a configMap, secret, projected or downward API volume, as the kubelet's AtomicWriter
// writes them: behind a link that is exchanged, so that all change at one moment.

import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

export function publishFiles(
  directory: string,
  files: Readonly<Record<string, string>>,
  mode = 0o644,
): void {
  const stamped = `..2026_11_24_${randomUUID().slice(0, 8)}`;
  const link = join(directory, '..data');
  const before = existsSync(link) ? readlinkSync(link) : undefined;
  mkdirSync(join(directory, stamped), { recursive: true, mode: 0o755 });
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(directory, stamped, name), text);
    chmodSync(join(directory, stamped, name), mode);
  }
  symlinkSync(stamped, `${link}_tmp`);
  renameSync(`${link}_tmp`, link);
  for (const name of Object.keys(files)) {
    const shown = join(directory, name);
    if (lstatSync(shown, { throwIfNoEntry: false }) === undefined) {
      symlinkSync(join('..data', name), shown);
    }
  }
  if (before !== undefined) rmSync(join(directory, before), { recursive: true });
}
