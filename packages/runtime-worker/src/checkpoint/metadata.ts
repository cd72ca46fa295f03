// The JSON files of a checkpoint archive, in the shapes of checkpointctl's lib/metadata.go, of CRI-O's
// internal/lib/checkpoint.go and of containerd's internal/cri/server/container_checkpoint_linux.go.

import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { placesOf, type Worker } from '../worker.ts';
import {
  BIND_MOUNTS,
  CONFIG_DUMP,
  CRIU_OPTIONS_ANNOTATION,
  SPEC_DUMP,
  STATUS,
  STATUS_DUMP,
} from './format.ts';

const NS_PER_MS = 1_000_000n;

interface BundleSpec {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly mounts: readonly {
    readonly destination: string;
    readonly type: string;
    readonly source: string;
  }[];
}

/** Each file's name and text. */
export async function metadataOf(
  worker: Worker,
  record: ContainerRecord,
): Promise<Readonly<Record<string, string>>> {
  const { bundle, declaredVolumes } = placesOf(worker, record.id);
  const whole = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8')) as BundleSpec;
  // What the image declares is in the root filesystem's changes, and nobody has to mount it again.
  const mounts = whole.mounts.filter(({ source }) => dirname(source) !== declaredVolumes);
  const spec = { ...whole, mounts };
  const bindMounts = await bindMountsOf(spec);
  const { [CRIU_OPTIONS_ANNOTATION]: _ofThisHost, ...annotations } = spec.annotations ?? {};
  return {
    [SPEC_DUMP]: json({ ...spec, annotations: { ...annotations, ...annotationsOf(record) } }),
    [CONFIG_DUMP]: json(configOf(worker, record)),
    [STATUS_DUMP]: json(statusOf(record)),
    [STATUS]: containerdStatusOf(record),
    ...(bindMounts.length === 0 ? {} : { [BIND_MOUNTS]: json(bindMounts) }),
  };
}

function configOf(worker: Worker, record: ContainerRecord) {
  const image = record.config?.image;
  const asked = image?.userSpecifiedImage || image?.image || record.imageId;
  return {
    id: record.id,
    name: record.config?.metadata?.name ?? '',
    rootfsImage: asked,
    // By which another node can pull it; the id where it came from no registry.
    rootfsImageRef: record.imageRef || record.imageId,
    rootfsImageName: asked,
    runtime: worker.handler,
    createdTime: timeOf(record.createdAtNs),
    checkpointedTime: timeOf(worker.service.clock.nowNs()),
    restoredTime: '0001-01-01T00:00:00Z',
    restored: record.restore,
  };
}

/** By which checkpointctl and CRI-O know the pod and the container. */
function annotationsOf(record: ContainerRecord): Record<string, string> {
  const name = record.config?.metadata?.name ?? '';
  return {
    'io.kubernetes.cri.container-type': 'container',
    'io.kubernetes.cri.container-name': name,
    'io.kubernetes.cri.sandbox-id': record.sandboxId,
    'io.kubernetes.cri.sandbox-name': record.podName,
    'io.kubernetes.cri.sandbox-namespace': record.podNamespace,
    'io.kubernetes.cri-o.Annotations': JSON.stringify(record.config?.annotations ?? {}),
  };
}

/** CRI's ContainerStatus, as far as it says what was; 64-bit numbers are texts, as in protobuf's JSON. */
function statusOf(record: ContainerRecord) {
  const { metadata, image, labels, annotations } = record.config ?? {};
  return {
    id: record.id,
    metadata: { name: metadata?.name ?? '', attempt: metadata?.attempt ?? 0 },
    state: 'CONTAINER_RUNNING',
    createdAt: String(record.createdAtNs),
    startedAt: String(record.startedAtNs),
    finishedAt: '0',
    exitCode: 0,
    image: { image: image?.image ?? '' },
    imageRef: record.imageRef,
    imageId: record.imageId,
    labels: labels ?? {},
    annotations: annotations ?? {},
    logPath: record.logPath,
  };
}

/** Nanoseconds exceed what a JSON number holds exactly here, so the text is put together. */
function containerdStatusOf(record: ContainerRecord): string {
  const numbers = {
    CreatedAt: record.createdAtNs,
    StartedAt: record.startedAtNs,
    FinishedAt: 0n,
    ExitCode: 0n,
    Pid: BigInt(record.process?.pid ?? 0),
  };
  const fields = Object.entries(numbers).map(([key, value]) => `"${key}":${value}`);
  return `{${[...fields, '"Reason":""', '"Message":""'].join(',')}}`;
}

/** So that a restore elsewhere knows which sources are files: criu binds only like to like. */
async function bindMountsOf({ mounts }: BundleSpec) {
  const found = await Promise.all(
    mounts
      .filter(({ type }) => type === 'bind')
      .map(async ({ source, destination }) => {
        const stats = await stat(source).catch((error: unknown) => {
          if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
          throw error;
        });
        if (stats === undefined) return [];
        const kind = stats.isDirectory() ? 'directory' : 'file';
        return [{ source, destination, file_type: kind, permissions: stats.mode & 0o777 }];
      }),
  );
  return found.flat();
}

function timeOf(ns: bigint): string {
  return new Date(Number(ns / NS_PER_MS)).toISOString();
}

function json(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
