// A CRI client of the stack that a command names.

import type { Config } from '@cribus/chassis/config.ts';
import { type CriClient, createCriClient } from '../cri-client.ts';
import { currentConfig } from './generated.ts';
import { openStack } from './open-stack.ts';
import { startHint } from './start-hint.ts';

/** Opens the stack, runs `work` with a client of its socket, and closes it. */
export async function withStackClient<T>(
  options: { readonly root: string | undefined; readonly config: string | undefined },
  work: (client: CriClient, config: Config) => Promise<T>,
): Promise<T> {
  const stack = await openStack(options);
  const config = await currentConfig(stack);
  const client = createCriClient(config.gateway.socket, startHint(stack));
  try {
    return await work(client, config);
  } finally {
    client.close();
  }
}
