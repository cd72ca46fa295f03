// An image's record as CRI shows it, and the table that finds one by any of its names.

import { Image } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ImageRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isDigest, normaliseImageName } from './image-name.ts';

/** Shorter beginnings of an id are too easily a name. */
const ID_PREFIX_LENGTH_MIN = 6;

/** An item of ListImages, and the image of ImageStatus. */
export function toImage(record: ImageRecord): Image {
  return Image.fromPartial({
    id: record.id,
    repoTags: record.repoTags,
    repoDigests: record.repoDigests,
    // Zero would be refused by the kubelet's client.
    size: record.sizeBytes > 0n ? record.sizeBytes : 1n,
    ...imageUser(record),
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

/** Finds images by id, beginning of an id, tag, digest or unnormalised name. */
export interface ImageNames {
  find(reference: string): ImageRecord | undefined;
}

export function indexImageNames(records: Iterable<ImageRecord>): ImageNames {
  const byName = new Map<string, ImageRecord>();
  const byId = new Map<string, ImageRecord>();
  const byManifest = new Map<string, ImageRecord>();
  for (const record of records) {
    byId.set(record.id, record);
    if (record.manifestDigest !== '') byManifest.set(record.manifestDigest, record);
    for (const name of [...record.repoTags, ...record.repoDigests]) {
      byName.set(normaliseImageName(name), record);
    }
  }
  return {
    find(reference) {
      const exact = byId.get(reference) ?? byId.get(`sha256:${reference}`);
      if (exact !== undefined) return exact;
      if (isDigest(reference)) return byManifest.get(reference);
      return byName.get(normaliseImageName(reference)) ?? byPrefix(byId, reference);
    },
  };
}

function byPrefix(
  byId: ReadonlyMap<string, ImageRecord>,
  reference: string,
): ImageRecord | undefined {
  const hex = reference.startsWith('sha256:') ? reference.slice('sha256:'.length) : reference;
  if (hex.length < ID_PREFIX_LENGTH_MIN || !/^[0-9a-f]+$/.test(hex)) return undefined;
  const found = [...byId.values()].filter((record) => record.id.startsWith(`sha256:${hex}`));
  return found.length === 1 ? found[0] : undefined;
}
