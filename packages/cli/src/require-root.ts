// Commands that touch the host need root, and say so before they change anything.

import { Failure } from '@cribus/contracts/failure.ts';

/** Raises denied for anyone but root. */
export function requireRoot(command: string, why: string): void {
  if (process.geteuid?.() === 0) return;
  throw new Failure('denied', `cribus ${command} needs root: ${why}; try it with sudo`);
}
