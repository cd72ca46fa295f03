// How a person starts the stack that a command was asked about.

import { existsSync } from 'node:fs';
import { shellWord } from '../shell-word.ts';
import type { Stack } from './open-stack.ts';

/** Where the package and deploy/install.sh put the unit. */
const TARGETS = ['/lib/systemd/system/cribus.target', '/etc/systemd/system/cribus.target'];

/** A command to type. */
export function startHint({ directory }: Pick<Stack, 'directory'>): string {
  if (directory !== undefined) return `cribus up --root ${shellWord(directory)}`;
  const isUnit = existsSync('/run/systemd/system') && TARGETS.some((path) => existsSync(path));
  return isUnit ? 'systemctl start cribus.target' : 'cribus up';
}
