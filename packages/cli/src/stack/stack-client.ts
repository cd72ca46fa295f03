// A CRI client of the stack that a command names.

import { type CriClient, createCriClient } from '../cri-client.ts';
import { currentConfig } from './generated.ts';
import { openStack } from './open-stack.ts';

/** Opens the stack, runs `work` with a client of its socket, and closes it. */
export async function withStackClient<T>(
  options: { readonly root: string | undefined; readonly config: string | undefined },
  work: (client: CriClient) => Promise<T>,
): Promise<T> {
  const stack = await openStack(options);
  const client = createCriClient((await currentConfig(stack)).gateway.socket);
  try {
    return await work(client);
  } finally {
    client.close();
  }
}
