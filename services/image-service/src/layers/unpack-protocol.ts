// What the main thread and the thread of one layer tell each other.

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
  | {
      readonly kind: 'failed';
      /** The archive itself is at fault. */
      readonly broken: boolean;
      /** Of a system call or of zlib. */
      readonly code: string;
      readonly message: string;
    };
