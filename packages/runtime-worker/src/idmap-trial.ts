// Whether this host can run a pod with a user namespace, by trying what such a pod needs.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { removeTree } from '@cribus/host/files.ts';
import { mountIdmappedOverlay } from '@cribus/host/idmapped-mounts.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { createUserNamespace } from '@cribus/host/user-namespaces.ts';

/** Any ids do: nothing is written. */
const MAPPING = { containerId: 0, hostId: 100_000, length: 65_536 };

/**
 * Makes a user namespace and an overlay of mapped layers on the file system of `directory`, where layers
 * are. Answers why this host can't, as the kernel says it; undefined where it can. Leaves nothing.
 */
export async function whyNoUserNamespaces(options: {
  readonly directory: string;
  readonly signal: AbortSignal;
}): Promise<string | undefined> {
  const trial = join(options.directory, 'idmap-trial');
  const at = (...names: string[]) => join(trial, ...names);
  // What a trial left that was cut short.
  await clear(trial);
  try {
    for (const name of [at('layers', 'a'), at('layers', 'b'), at('root')]) {
      mkdirSync(name, { recursive: true, mode: 0o700 });
    }
    const userNamespace = at('user');
    await createUserNamespace({
      pins: { user: userNamespace },
      mappings: { uids: [MAPPING], gids: [MAPPING] },
      signal: options.signal,
    });
    const layers = { layersDirectory: at('layers'), layerNames: ['a', 'b'] };
    mountIdmappedOverlay({ target: at('root'), ...layers }, { userNamespace });
    return undefined;
  } catch (error) {
    options.signal.throwIfAborted();
    return error instanceof Error ? error.message : String(error);
  } finally {
    await clear(trial);
  }
}

async function clear(trial: string): Promise<void> {
  unmountTree(trial);
  await removeTree(trial);
}
