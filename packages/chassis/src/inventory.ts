// An owner's whole set, cut into pages that fit a message.

import { ObjectReport, type OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import type { InventoryResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';

export const INVENTORY_PAGE_OBJECTS_MAX = 256;
export const INVENTORY_PAGE_BYTES_MAX = 4 * 1024 * 1024;

/**
 * The page after `pageToken` (the last id of the page before; empty for the first), ordered by id,
 * so that objects that come and go between two pages neither hide nor repeat others.
 */
export function inventoryPage(options: {
  readonly reports: readonly ObjectReport[];
  readonly pageToken: string;
  readonly status: OwnerStatus;
}): InventoryResponse {
  const { pageToken } = options;
  const rest = options.reports
    .filter((report) => report.id > pageToken)
    .sort((a, b) => (a.id < b.id ? -1 : 1));
  const objects: ObjectReport[] = [];
  let bytes = 0;
  for (const report of rest) {
    bytes += ObjectReport.encode(report).finish().length;
    const full = objects.length >= INVENTORY_PAGE_OBJECTS_MAX || bytes > INVENTORY_PAGE_BYTES_MAX;
    // A single object over the maximum still travels, alone.
    if (full && objects.length > 0) break;
    objects.push(report);
  }
  const nextPageToken = objects.length < rest.length ? (objects.at(-1)?.id ?? '') : '';
  return { objects, nextPageToken, status: options.status };
}
