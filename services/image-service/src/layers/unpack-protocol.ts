// What the main thread and the thread of one layer tell each other.

import type { ThreadFailure } from '@cribus/archive/thread-failure.ts';

export interface UnpackThreadData {
  /** Empty, on the host; becomes the thread's root. */
  readonly directory: string;
}

export type ToUnpackThread =
  | { readonly kind: 'block'; readonly data: Uint8Array<ArrayBuffer> }
  | { readonly kind: 'end' };

export interface UnpackResult {
  /** `sha256:<hex>` of the blob as it came. */
  readonly digest: string;
  readonly blobBytes: number;
  /** `sha256:<hex>` of the tar archive in it. */
  readonly diffId: string;
  readonly tarBytes: number;
  /** On the disk, roughly. */
  readonly usedBytes: number;
  readonly inodes: number;
  readonly impliedDirectories: readonly string[];
}

export type FromUnpackThread =
  | { readonly kind: 'ready' }
  /** One block was taken. */
  | { readonly kind: 'credit' }
  | ({ readonly kind: 'done' } & UnpackResult)
  | ThreadFailure;
