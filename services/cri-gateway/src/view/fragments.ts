// List answers put together from pieces that were encoded when their object changed. All three lists
// of CRI hold their items in field 1, so a piece fits any of them.

/** Field 1, wire type LEN (protobuf encoding). */
const ITEM_TAG = 0x0a;

/** One item of a list answer: its tag, its length, its bytes. */
export function encodeFragment(message: Uint8Array): Buffer {
  const length: number[] = [];
  let rest = message.length;
  while (rest > 0x7f) {
    length.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  length.push(rest);
  const fragment = Buffer.allocUnsafe(1 + length.length + message.length);
  fragment[0] = ITEM_TAG;
  fragment.set(length, 1);
  fragment.set(message, 1 + length.length);
  return fragment;
}

/** The whole list answer, byte for byte as the generated encoder would write it. */
export function joinFragments(fragments: readonly Buffer[]): Buffer {
  return Buffer.concat(fragments);
}
