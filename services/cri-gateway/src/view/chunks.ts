// Streamed lists: the same encoded items as in the plain lists, as many in a message as fit well.

import { encodeFragment, joinFragments } from './fragments.ts';

/**
 * A message is sent before it grows over this: far below the 16 MiB that clients take (cri-client,
 * maxMsgSize), and enough that its framing costs nothing. One larger item travels alone.
 */
export const STREAM_MESSAGE_BYTES = 256 * 1024;

/**
 * Groups encoded items into messages with at least one item each; none for no items. They are taken
 * at one moment, when the caller asks for the first message.
 */
export async function* inMessages(
  items: () => Iterable<Buffer> | Promise<Iterable<Buffer>>,
): AsyncGenerator<Buffer> {
  let group: Buffer[] = [];
  let bytes = 0;
  for (const fragment of await items()) {
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
export function* asFragments<Item>(
  items: Iterable<Item>,
  codec: { encode(item: Item): { finish(): Uint8Array } },
): Generator<Buffer> {
  for (const item of items) yield encodeFragment(codec.encode(item).finish());
}
