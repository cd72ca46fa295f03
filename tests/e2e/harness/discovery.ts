// NATS' service discovery (the "micro" protocol of NATS, ADR-32), asked as an operator would.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, createInbox, nkeyAuthenticator } from '@nats-io/transport-node';
import { eventually } from './stack.ts';

export interface OwnerInfo {
  readonly type: string;
  readonly name: string;
  readonly id: string;
  readonly version: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly endpoints: readonly {
    readonly name: string;
    readonly subject: string;
    readonly num_requests?: number;
    readonly num_errors?: number;
    readonly average_processing_time?: number;
  }[];
}

/** Asks the stack below `root` until so many owners answer within half a second. */
export async function discoverOwners(
  root: string,
  verb: 'INFO' | 'STATS',
  count: number,
): Promise<readonly OwnerInfo[]> {
  const state = join(root, 'state');
  const seed = (await readFile(join(state, 'credentials', 'operator.nk'), 'utf8')).trim();
  const ports = JSON.parse(await readFile(join(state, 'generated', 'ports.json'), 'utf8')) as {
    nats: number;
  };
  const connection = await connect({
    servers: `127.0.0.1:${ports.nats}`,
    authenticator: nkeyAuthenticator(new TextEncoder().encode(seed)),
  });
  try {
    return await eventually('every owner answers', async () => {
      const answers: OwnerInfo[] = [];
      const inbox = createInbox();
      const subscription = connection.subscribe(inbox, {
        callback: (_error, message) => void answers.push(message.json<OwnerInfo>()),
      });
      connection.publish(`$SRV.${verb}`, '', { reply: inbox });
      await sleep(500);
      subscription.unsubscribe();
      return answers.length >= count && answers;
    });
  } finally {
    await connection.close();
  }
}
