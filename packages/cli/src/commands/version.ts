// `cribus version`.

import { VERSION } from '../stack/parts.ts';

export async function runVersion(): Promise<number> {
  console.log(`cribus ${VERSION} (CRI v1, Node ${process.versions.node})`);
  return 0;
}
