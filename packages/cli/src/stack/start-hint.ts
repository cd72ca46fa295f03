// How a person starts the stack that a command was asked about.

import { shellWord } from '../shell-word.ts';
import type { Stack } from './open-stack.ts';
import { hasUnits } from './units.ts';

/** A command to type. */
export function startHint(stack: Pick<Stack, 'directory'>): string {
  const { directory } = stack;
  if (directory !== undefined) return `cribus up --root ${shellWord(directory)}`;
  return hasUnits(stack) ? 'systemctl start cribus.target' : 'cribus up';
}
