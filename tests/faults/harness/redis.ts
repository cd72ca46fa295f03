// The embedded Redis, as its operator.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { Stack } from '../../e2e/harness/stack.ts';

/** Empties Redis; answers how many keys there were. */
export async function flushAll(stack: Stack): Promise<number> {
  const config = await readFile(join(stack.root, 'state', 'generated', 'redis.conf'), 'utf8');
  const password = /^requirepass (\S+)$/m.exec(config)?.[1] ?? '';
  const redis = new Redis({ path: join(stack.root, 'run', 'redis.sock'), password });
  try {
    const keys = await redis.dbsize();
    await redis.flushall();
    return keys;
  } finally {
    redis.disconnect();
  }
}
