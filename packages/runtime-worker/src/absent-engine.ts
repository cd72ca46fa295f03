// What stands in for an engine that is not there: it can start nothing, and of what an earlier one
// made it frees the state files, so that dead containers can still be removed.

import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import type { EngineOperation } from './driver.ts';
import type { Engine } from './engine.ts';

/** `why` names the missing path; `root` is where the engine kept its state. */
export function absentEngine({
  root,
  command,
  why,
}: {
  readonly root: string;
  readonly command: string;
  readonly why: string;
}): Engine {
  const refuse = (operation: EngineOperation) => async () => {
    throw new Failure('unavailable', why, { stage: `engine ${operation}` });
  };
  /** runc and crun have a directory by the id, runsc files whose names begin with it. */
  const stateOf = async (id: string) =>
    (await listDirectory(root)).filter((name) => name === id || name.startsWith(`${id}_`));
  return {
    command,
    argv: (operation, args) => [operation, ...args],
    start: refuse('start'),
    kill: async (id) => {
      if ((await stateOf(id)).length === 0) return false;
      return await refuse('kill')();
    },
    killProcessTree: refuse('kill'),
    update: refuse('update'),
    portForward: refuse('port-forward'),
    remove: async (id) => {
      for (const name of await stateOf(id)) await removeTree(join(root, name));
    },
    state: async () => undefined,
    wait: async () => undefined,
    stats: async () => undefined,
  };
}
