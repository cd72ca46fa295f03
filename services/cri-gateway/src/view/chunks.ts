// Streamed lists: the same encoded items as in the plain lists, as many in a message as fit well.

import { encodeFragment, joinFragments } from './fragments.ts';

/**
 * A message is sent before it grows over this: far below the 16 MiB that clients take (cri-client,
 * maxMsgSize), and enough that its framing costs nothing. One larger item travels alone.
 */
export const STREAM_MESSAGE_BYTES = 256 * 1024;

/** Items that are there at once, or come as they are made. */
export type Items<Item> = Iterable<Item> | AsyncIterable<Item>;

/**
 * Groups encoded items into messages with at least one item each; none for no items. They are taken
 * when the caller asks for the first message.
 */
export async function* inMessages(
  items: () => Items<Buffer> | Promise<Items<Buffer>>,
): AsyncGenerator<Buffer> {
  let group: Buffer[] = [];
  let bytes = 0;
  for await (const fragment of await items()) {
    if (bytes > 0 && bytes + fragment.length > STREAM_MESSAGE_BYTES) {
      yield joinFragments(group);
      group = [];
      bytes = 0;
    }
    group.push(fragment);
    bytes += fragment.length;
  }
  if (bytes > 0) yield joinFragments(group);
}

/** Encodes items one by one, as they are needed. */
export async function* asFragments<Item>(
  items: Items<Item>,
  codec: { encode(item: Item): { finish(): Uint8Array } },
): AsyncGenerator<Buffer> {
  for await (const item of items) yield encodeFragment(codec.encode(item).finish());
}
