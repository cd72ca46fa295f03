// What the gateway knows of the node: every sandbox, container and image that an owner reported, in
// memory, ready to be listed. Nothing here waits for anything.

import { Container, Image, PodSandbox } from '@cribus/contracts/gen/cri/v1/api.ts';
import type {
  ContainerRecord,
  ImageRecord,
  ObjectReport,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import type { Platform } from '@cribus/contracts/image-platform.ts';
import { findImage } from '@cribus/contracts/image-reference.ts';
import type { OwnerName } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isContainerShown, toContainer } from './cri-container.ts';
import { toImage } from './cri-image.ts';
import { isSandboxShown, toPodSandbox } from './cri-sandbox.ts';
import { encodeFragment } from './fragments.ts';
import {
  createObjectTable,
  type Entry,
  type ObjectTable,
  type ObjectVersion,
  versionOf,
} from './object-table.ts';

export interface Listed<R> {
  readonly record: R;
  /** The encoded list item. */
  readonly fragment: Buffer;
}

/** What an applied report made of an object; images are not told. */
export type ViewChange =
  | ChangeOf<'sandbox', SandboxRecord>
  | ChangeOf<'container', ContainerRecord>;

type ChangeOf<K, R> = { readonly kind: K; readonly id: string } & (
  | { readonly before: R | undefined; readonly after: R }
  /** It is gone. */
  | { readonly before: R; readonly after: undefined }
);

export interface NodeView {
  /**
   * One listener, called when the view has changed and before the time of that change is taken, so
   * that what a caller reads afterwards bears a later time than what the listener told.
   */
  onChange(listener: (change: ViewChange) => void): void;
  /** Applies a report if it is newer than what is known; false for old news. */
  apply(report: ObjectReport): boolean;
  /** To be taken before an inventory is asked for, and given to `dropMissing` with its answer. */
  order(): number;
  /** Drops this owner's objects that a complete inventory lacks, unless they came after `since`. */
  dropMissing(owner: OwnerName, present: ReadonlySet<string>, since: number): number;
  sandbox(id: string): SandboxRecord | undefined;
  container(id: string): ContainerRecord | undefined;
  /** By id or unique beginning of one. */
  findSandbox(id: string): Found<SandboxRecord>;
  findContainer(id: string): Found<ContainerRecord>;
  image(id: string): ImageRecord | undefined;
  /** By any of its names, as its owner finds it; raises invalid_argument for what can name none. */
  findImage(name: string, wanted?: Platform): ImageRecord | undefined;
  /** Sandboxes and containers that are shown to CRI's callers. */
  sandboxes(): Listed<SandboxRecord>[];
  containers(): Listed<ContainerRecord>[];
  images(): Listed<ImageRecord>[];
  containersOf(sandboxId: string): ContainerRecord[];
  /** When the sandbox or any of its containers last changed here; grows, nanoseconds. */
  sandboxTouchedAtNs(sandboxId: string): bigint;
  /** Every handler that a sandbox record names. */
  handlersInUse(): Set<string>;
}

export interface Found<R> {
  readonly record?: R;
  readonly ambiguous: boolean;
}

type Stored<R> = Listed<R>;

interface Tables {
  readonly sandbox: ObjectTable<Stored<SandboxRecord>>;
  readonly container: ObjectTable<Stored<ContainerRecord>>;
  readonly image: ObjectTable<Stored<ImageRecord>>;
}

type Kind = keyof Tables;

/** Which containers a sandbox has, and when it or one of them last changed. */
interface SandboxIndex {
  add(container: ContainerRecord): void;
  delete(container: ContainerRecord): void;
  touch(sandboxId: string): void;
  forget(sandboxId: string): void;
  containerIds(sandboxId: string): string[];
  touchedAtNs(sandboxId: string): bigint;
}

function createSandboxIndex(clock: Clock, knows: (sandboxId: string) => boolean): SandboxIndex {
  const containerIds = new Map<string, Set<string>>();
  const touchedAtNs = new Map<string, bigint>();
  return {
    add({ id, sandboxId }) {
      containerIds.set(sandboxId, (containerIds.get(sandboxId) ?? new Set<string>()).add(id));
    },
    delete({ id, sandboxId }) {
      const ids = containerIds.get(sandboxId);
      ids?.delete(id);
      if (ids?.size === 0) containerIds.delete(sandboxId);
    },
    touch(sandboxId) {
      // A sandbox that went before its containers has no time to keep.
      if (knows(sandboxId)) touchedAtNs.set(sandboxId, clock.nowNs());
      else touchedAtNs.delete(sandboxId);
    },
    forget(sandboxId) {
      touchedAtNs.delete(sandboxId);
    },
    containerIds: (sandboxId) => [...(containerIds.get(sandboxId) ?? [])],
    touchedAtNs: (sandboxId) => touchedAtNs.get(sandboxId) ?? 0n,
  };
}

export function createNodeView(clock: Clock): NodeView {
  const tables: Tables = {
    sandbox: createObjectTable(),
    container: createObjectTable(),
    image: createObjectTable(),
  };
  const index = createSandboxIndex(clock, (id) => tables.sandbox.get(id) !== undefined);
  let order = 0;
  let listener = (_change: ViewChange): void => undefined;

  const put = (report: ObjectReport): boolean => {
    const { object } = report;
    if (object === undefined) return false;
    order += 1;
    const head = {
      id: report.id,
      owner: report.owner as OwnerName,
      version: versionOf(report.version),
      appliedOrder: order,
      appliedAtNs: clock.nowNs(),
    };
    switch (object.$case) {
      case 'sandbox': {
        const before = tables.sandbox.get(report.id)?.record.record;
        const after = object.value;
        if (!tables.sandbox.put({ ...head, record: listedSandbox(after) })) return false;
        listener({ kind: 'sandbox', id: report.id, before, after });
        index.touch(report.id);
        return true;
      }
      case 'container': {
        const before = tables.container.get(report.id)?.record.record;
        const after = object.value;
        if (!tables.container.put({ ...head, record: listedContainer(after) })) return false;
        index.add(after);
        listener({ kind: 'container', id: report.id, before, after });
        index.touch(after.sandboxId);
        return true;
      }
      case 'image':
        return tables.image.put({ ...head, record: listedImage(object.value) });
      default:
        return object satisfies never;
    }
  };

  // Ids are unique over the kinds (random, or a digest), so a deletion needn't name its kind.
  const remove = (kind: Kind, id: string, version: ObjectVersion | 'dropped'): boolean => {
    const container = kind === 'container' ? tables.container.get(id)?.record.record : undefined;
    const sandbox = kind === 'sandbox' ? tables.sandbox.get(id)?.record.record : undefined;
    const nowMs = clock.monotonicMs();
    if (version === 'dropped') tables[kind].forget(id, nowMs);
    else if (!tables[kind].remove(id, version, nowMs)) return false;
    if (container !== undefined) {
      index.delete(container);
      listener({ kind: 'container', id, before: container, after: undefined });
      index.touch(container.sandboxId);
    }
    if (sandbox !== undefined) {
      listener({ kind: 'sandbox', id, before: sandbox, after: undefined });
      index.forget(id);
    }
    return true;
  };

  return {
    onChange(heard) {
      listener = heard;
    },
    apply(report) {
      if (!report.deleted) return put(report);
      return remove(kindOf(report), report.id, versionOf(report.version));
    },
    order: () => order,
    dropMissing(owner, present, since) {
      let dropped = 0;
      for (const kind of ['sandbox', 'container', 'image'] as const) {
        const entries: readonly Entry<unknown>[] = [...tables[kind].values()];
        for (const entry of entries) {
          if (entry.owner !== owner || present.has(entry.id)) continue;
          if (entry.appliedOrder > since) continue;
          remove(kind, entry.id, 'dropped');
          dropped += 1;
        }
      }
      return dropped;
    },
    ...readSide(tables, index),
  };
}

/** What only looks. */
function readSide(
  tables: Tables,
  index: SandboxIndex,
): Omit<NodeView, 'onChange' | 'apply' | 'order' | 'dropMissing'> {
  return {
    sandbox: (id) => tables.sandbox.get(id)?.record.record,
    container: (id) => tables.container.get(id)?.record.record,
    findSandbox: (id) => found(tables.sandbox.resolve(id)),
    findContainer: (id) => found(tables.container.resolve(id)),
    image: (id) => tables.image.get(id)?.record.record,
    findImage: (name, wanted) =>
      findImage(
        [...tables.image.values()].map((entry) => entry.record.record),
        name,
        wanted,
      ),
    sandboxes: () => shown(tables.sandbox, isSandboxShown),
    containers: () => shown(tables.container, isContainerShown),
    images: () => shown(tables.image, () => true),
    containersOf: (sandboxId) =>
      index
        .containerIds(sandboxId)
        .map((id) => tables.container.get(id)?.record.record)
        .filter((record) => record !== undefined),
    sandboxTouchedAtNs: index.touchedAtNs,
    handlersInUse: () =>
      new Set([...tables.sandbox.values()].map((entry) => entry.record.record.handler)),
  };
}

function found<R>(result: { entry?: Entry<Stored<R>>; ambiguous: boolean }): Found<R> {
  return result.entry === undefined
    ? { ambiguous: result.ambiguous }
    : { record: result.entry.record.record, ambiguous: false };
}

function shown<R>(table: ObjectTable<Stored<R>>, isShown: (record: R) => boolean): Listed<R>[] {
  const listed: Listed<R>[] = [];
  for (const entry of table.values()) {
    if (isShown(entry.record.record)) listed.push(entry.record);
  }
  return listed;
}

/** A deletion carries its kind where the owner says so; else the owner's name tells it. */
function kindOf(report: ObjectReport): Kind {
  if (report.object !== undefined) return report.object.$case;
  if (report.owner === 'image-service') return 'image';
  return report.owner === 'sandbox-manager' ? 'sandbox' : 'container';
}

function listedSandbox(record: SandboxRecord): Stored<SandboxRecord> {
  return { record, fragment: encodeFragment(PodSandbox.encode(toPodSandbox(record)).finish()) };
}

function listedContainer(record: ContainerRecord): Stored<ContainerRecord> {
  return { record, fragment: encodeFragment(Container.encode(toContainer(record)).finish()) };
}

function listedImage(record: ImageRecord): Stored<ImageRecord> {
  return { record, fragment: encodeFragment(Image.encode(toImage(record)).finish()) };
}
