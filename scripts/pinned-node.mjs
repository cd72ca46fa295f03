// The Node that services and tests run on: an npm package of ours, pinned by the lockfile.
import { join } from 'node:path';

/** Absolute path of the pinned Node's executable; the workspace must be installed. */
export function pinnedNode(root) {
  return join(root, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
}
