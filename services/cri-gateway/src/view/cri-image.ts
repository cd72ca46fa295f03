// An image's record as CRI shows it.

import { Image } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ImageRecord } from '@cribus/contracts/gen/node/v1/records.ts';

/** An item of ListImages, and the image of ImageStatus. */
export function toImage(record: ImageRecord): Image {
  return Image.fromPartial({
    id: record.id,
    repoTags: record.repoTags,
    repoDigests: record.repoDigests,
    // Zero would be refused by the kubelet's client.
    size: record.sizeBytes > 0n ? record.sizeBytes : 1n,
    ...imageUser(record),
    // An image is asked for by its id, also by the kubelet, which takes the annotations from here.
    spec: { image: record.id, annotations: record.annotations },
    pinned: record.pinned,
  });
}

/** The parsed image configuration; an empty object where it can't be read. */
export function imageConfig(record: ImageRecord): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(record.configJson.toString('utf8'));
    return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

/** A numeric user is `uid`, a named one `username`, never both; the group is not CRI's business. */
function imageUser(record: ImageRecord): { uid?: { value: bigint }; username?: string } {
  const config = imageConfig(record)['config'];
  if (typeof config !== 'object' || config === null) return {};
  const user = (config as Record<string, unknown>)['User'];
  if (typeof user !== 'string' || user === '') return {};
  const name = user.split(':')[0] ?? '';
  if (/^\d{1,18}$/.test(name)) return { uid: { value: BigInt(name) } };
  return { username: name };
}
