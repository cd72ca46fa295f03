// What every verb of a runtime worker is given: one handler's stores, engine, locks and watches.

import { existsSync } from 'node:fs';
import type { VerbContext } from '@cribus/chassis/owner.ts';
import type { KeyedLock } from '@cribus/chassis/queue.ts';
import type { RecordStore } from '@cribus/chassis/records.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { containerPaths, type handlerPaths } from '@cribus/contracts/paths.ts';
import { type OwnerName, subjectToken } from '@cribus/contracts/subjects.ts';
import type { CgroupHost } from '@cribus/host/cgroups.ts';
import type { Watching } from './attach.ts';
import type { RuntimeDriver } from './driver.ts';
import type { Engine } from './engine.ts';
import type { ExecStarts } from './exec-starts.ts';
import type { Exits } from './exits.ts';
import type { Changes } from './phases.ts';
import type { Sessions } from './sessions.ts';

/** A CreateContainer that has not ended. */
export interface Creation {
  readonly id: string;
  readonly sandboxId: string;
  readonly requestHash: string;
  readonly done: Promise<string>;
}

export interface Worker {
  readonly service: Service;
  readonly handler: string;
  readonly owner: OwnerName;
  readonly paths: ReturnType<typeof handlerPaths>;
  readonly driver: RuntimeDriver;
  readonly engine: Engine;
  readonly conmon: string;
  readonly store: RecordStore<ContainerRecord>;
  readonly changes: Changes;
  readonly cgroups: CgroupHost;
  /** Of the monitors; they are no part of a pod's accounting. */
  readonly monitorsCgroup: string;
  /** One lifecycle verb at a time for a container id. */
  readonly lifecycle: KeyedLock;
  readonly exits: Exits;
  readonly sessions: Sessions;
  /** Of engines that are about to start a command in a container. */
  readonly execStarts: ExecStarts;
  /** By CRI key. */
  readonly creations: Map<string, Creation>;
  /** Sandboxes that are being stopped or removed: nothing may be created in them. */
  readonly fenced: Set<string>;
  /** Containers whose engine state is gone already; forgotten with the container. */
  readonly released: Set<string>;
  /** The connection that sessions without stdin share, by container id. */
  readonly watching: Map<string, Promise<Watching>>;
  /** When a running stop will kill, in monotonic milliseconds, by container id. */
  readonly killTimes: Map<string, { atMs: number; readonly hurry: AbortController[] }>;
}

/** The places of one container. */
export function placesOf(worker: Worker, id: string): ReturnType<typeof containerPaths> {
  return containerPaths(worker.service.config.roots, subjectToken(worker.handler), id);
}

/** The upper directory of a container's overlay. */
export function writableLayerOf(worker: Worker, id: string): string {
  const { upper, formerUpper } = placesOf(worker, id);
  return existsSync(formerUpper) ? formerUpper : upper;
}

/** The record of a CRI container; not_found for an unknown id and for a sandbox's own process. */
export function requireContainer(worker: Worker, id: string): ContainerRecord {
  const record = worker.store.get(id);
  if (record === undefined || record.sandboxProcess) {
    throw new Failure('not_found', `container ${id} does not exist`);
  }
  return record;
}

/** Every record of a sandbox, its own process included. */
export function recordsOfSandbox(worker: Worker, sandboxId: string): ContainerRecord[] {
  return worker.store.all().filter((record) => record.sandboxId === sandboxId);
}

/** What a create stamps into its record, so that a repeated call finds its own answer. */
export function stamp(worker: Worker, verb: string, context: VerbContext) {
  return {
    operationId: context.operationId,
    verb,
    requestHash: context.requestHash,
    finishedAtNs: worker.service.clock.nowNs(),
    acknowledged: false,
  };
}
