// The names in a checkpoint archive and what is in its JSON files, as checkpointctl, CRI-O, containerd
// and Podman have them (checkpoint-restore/checkpointctl, lib/metadata.go). Reading trusts nothing.

import { Failure } from '@cribus/contracts/failure.ts';

export const CONFIG_DUMP = 'config.dump';
export const SPEC_DUMP = 'spec.dump';
export const STATUS_DUMP = 'status.dump';
/** containerd's own state, by which checkpointctl tells its archives. */
export const STATUS = 'status';
export const CRIU_IMAGES = 'checkpoint';
export const ROOTFS_DIFF = 'rootfs-diff.tar';
export const DELETED_FILES = 'deleted.files';
export const DUMP_LOG = 'dump.log';
export const STATS_DUMP = 'stats-dump';
export const BIND_MOUNTS = 'bind.mounts';
export const CONTAINER_LOG = 'container.log';

/** Manifest annotations of an image that holds a checkpoint: today's name, and CRI-O's first one. */
export const CHECKPOINT_ANNOTATIONS = [
  'org.criu.checkpoint.container.name',
  'io.kubernetes.cri-o.annotations.checkpoint.name',
];

/** By which runc and crun find a file with options for criu; it is of one host only. */
export const CRIU_OPTIONS_ANNOTATION = 'org.criu.config';

/** Of config.dump, as far as it is read again. */
export interface ConfigDump {
  readonly id: string;
  readonly name: string;
  /** As the caller named it. */
  readonly rootfsImage?: string;
  /** An id or a digest: of this one image. */
  readonly rootfsImageRef?: string;
  readonly rootfsImageName?: string;
  readonly runtime?: string;
  readonly createdTime?: string;
  readonly checkpointedTime?: string;
  readonly restored?: boolean;
}

/** Of spec.dump, as far as it is read again. */
export interface SpecDump {
  readonly mounts: readonly { readonly destination: string; readonly type: string }[];
}

export const METADATA_BYTES_MAX = 4 * 1024 * 1024;
const DELETED_FILES_MAX = 1_000_000;

/** A broken or hostile archive; `place` is its path or the image's name. */
export function badCheckpoint(place: string, why: string): Failure {
  return new Failure('invalid_argument', `checkpoint ${place}: ${why}`, { stage: 'checkpoint' });
}

/** Raises invalid_argument for what is no config.dump. */
export function parseConfigDump(text: string, place: string): ConfigDump {
  const table = parseTable(text, { name: CONFIG_DUMP, place });
  const textAt = (key: string) => {
    const value = table[key];
    if (value !== undefined && typeof value !== 'string') {
      throw badCheckpoint(place, `${key} in ${CONFIG_DUMP} is no text`);
    }
    return value ?? '';
  };
  const dump = {
    id: textAt('id'),
    name: textAt('name'),
    rootfsImage: textAt('rootfsImage'),
    rootfsImageRef: textAt('rootfsImageRef'),
    rootfsImageName: textAt('rootfsImageName'),
    runtime: textAt('runtime'),
  };
  if (imageOf(dump) === '') throw badCheckpoint(place, `${CONFIG_DUMP} names no image`);
  return dump;
}

/** The image below the container's own files: by what can't have moved since, if it is there. */
export function imageOf(dump: ConfigDump): string {
  return dump.rootfsImageRef || dump.rootfsImageName || dump.rootfsImage || '';
}

/** Raises invalid_argument for what is no OCI runtime specification. */
export function parseSpecDump(text: string, place: string): SpecDump {
  const { mounts = [] } = parseTable(text, { name: SPEC_DUMP, place });
  if (!Array.isArray(mounts)) throw badCheckpoint(place, `mounts in ${SPEC_DUMP} are no list`);
  return {
    mounts: mounts.map((mount: unknown) => {
      const { destination, type = '' } = (mount ?? {}) as Record<string, unknown>;
      if (typeof destination !== 'string' || typeof type !== 'string') {
        throw badCheckpoint(place, `${SPEC_DUMP} has a mount without a destination`);
      }
      return { destination, type };
    }),
  };
}

/** Raises invalid_argument for what is no list of paths. */
export function parseDeletedFiles(text: string, place: string): string[] {
  const list = parseJson(text, { name: DELETED_FILES, place });
  if (list === null) return [];
  const whole = Array.isArray(list) && list.length <= DELETED_FILES_MAX;
  if (!whole || !list.every((path) => typeof path === 'string')) {
    throw badCheckpoint(place, `${DELETED_FILES} is no list of paths`);
  }
  return list;
}

interface File {
  readonly name: string;
  readonly place: string;
}

function parseTable(text: string, file: File): Readonly<Record<string, unknown>> {
  const value = parseJson(text, file);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badCheckpoint(file.place, `${file.name} is no JSON object`);
  }
  return value as Record<string, unknown>;
}

function parseJson(text: string, { name, place }: File): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw badCheckpoint(place, `${name} is no JSON: ${error.message.slice(0, 120)}`);
  }
}
