// Samples of the whole node, taken about once a second in the background, but only while somebody asks for
// statistics: a node that nobody watches does nothing.
//
//   idle --asked--> sampling --a minute without an ask--> idle, samples forgotten

import { askPages } from '@cribus/chassis/pages.ts';
import {
  ContainerPhase,
  type ContainerRecord,
  type ContainerUsage,
  SandboxPhase,
  type SandboxUsage,
} from '@cribus/contracts/gen/node/v1/records.ts';
import {
  type OwnerName,
  type RequestOf,
  type ResponseOf,
  runtimeOwner,
  SANDBOX_MANAGER,
} from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { joinSignals, withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { NodeView } from '../view/node-view.ts';
import type { Owners } from '../view/owners.ts';
import { type ContainerSample, nextSample, type Sample, type SandboxSample } from './samples.ts';

/** Sampling goes on so long after the last ask: the kubelet asks every ten seconds, people less. */
const GOES_ON_MS = 60_000;
const EVERY_MS = 800;
/** The second reading comes sooner, so that rates are there soon. */
const SECOND_AFTER_MS = 300;
/** What only metrics show is read less often: it costs ten times as much. */
const DETAILS_EVERY_MS = 5_000;
/**
 * A sample is recent for so long; then the loop is behind, and an ask takes its own. crictl asks twice,
 * a second apart, and fails when it gets the same sample.
 */
const RECENT_MS = 950;
/** An ask waits so long at most for a sample; what is not there then is left out. */
const WAIT_MS = 3_000;
/** An owner has so long for one sample. */
const SAMPLE_BUDGET_MS = 8_000;

type SampleVerb = 'sample-containers' | 'sample-sandboxes';

export interface StatisticsOptions {
  readonly view: NodeView;
  readonly owners: Owners;
  readonly clock: Clock;
  readonly stopping: AbortSignal;
  background(name: string, work: Promise<unknown>): void;
  ask<V extends SampleVerb>(
    verb: V,
    request: RequestOf<V>,
    options: { readonly owner: OwnerName; readonly signal: AbortSignal },
  ): Promise<ResponseOf<V>>;
  readonly log: { debug(fields: object, message: string): void };
}

export interface Statistics {
  /**
   * Says that somebody asks, and waits until there are recent samples of every owner that is there,
   * three seconds at most. Rejects with the signal's reason.
   */
  recent(options: { readonly details: boolean; readonly signal: AbortSignal }): Promise<void>;
  container(record: ContainerRecord): ContainerSample | undefined;
  sandbox(id: string): SandboxSample | undefined;
}

interface OwnerSamples {
  readonly containers: Map<string, ContainerSample>;
  readonly sandboxes: Map<string, SandboxSample>;
  running:
    | {
        readonly details: boolean;
        readonly done: Promise<void>;
        readonly begunAtNs: bigint;
        readonly sinceMs: number;
      }
    | undefined;
  /** Monotonic, of the last whole sample; undefined before the first and after a failure. */
  sampledAtMs: number | undefined;
  /** Wall clock at which it began. */
  begunAtNs: bigint;
  /** The same of the last one with details. */
  detailedAtMs: number | undefined;
  detailedBegunAtNs: bigint;
  /** The last try. */
  failed: boolean;
}

/** Makes the sampler; it begins with the first ask. */
export function createStatistics(options: StatisticsOptions): Statistics {
  const { clock, owners, view, stopping } = options;
  const states = new Map<OwnerName, OwnerSamples>();
  let askedUntilMs = 0;
  let detailsUntilMs = 0;
  let looping = false;

  const stateOf = (owner: OwnerName): OwnerSamples => {
    const known = states.get(owner) ?? emptySamples();
    states.set(owner, known);
    return known;
  };
  const present = (): OwnerName[] =>
    [
      SANDBOX_MANAGER,
      ...new Set([...owners.handlers(), ...view.handlersInUse()].map(runtimeOwner)),
    ].filter((owner) => owners.isAlive(owner));
  /** Joins a sample that is under way, unless it began before what is looked for came to be. */
  const sample = (owner: OwnerName, details: boolean, notBeforeNs = 0n): Promise<void> => {
    const state = stateOf(owner);
    const { running } = state;
    if (running !== undefined) {
      const fits = (running.details || !details) && running.begunAtNs >= notBeforeNs;
      if (fits) return running.done;
      return running.done.then(() => sample(owner, details, notBeforeNs));
    }
    const begunAtNs = clock.nowNs();
    const done = sampleOwner(options, { owner, state, details, begunAtNs }).finally(() => {
      state.running = undefined;
    });
    state.running = { details, done, begunAtNs, sinceMs: clock.monotonicMs() };
    return done;
  };
  const detailsDue = (state: OwnerSamples): boolean =>
    clock.monotonicMs() < detailsUntilMs &&
    clock.monotonicMs() - (state.detailedAtMs ?? Number.NEGATIVE_INFINITY) >= DETAILS_EVERY_MS;
  const loop = async (): Promise<void> => {
    for (let pauseMs = SECOND_AFTER_MS; !stopping.aborted; ) {
      await clock.sleep(pauseMs, stopping).catch(() => undefined);
      if (stopping.aborted || clock.monotonicMs() >= askedUntilMs) break;
      const startedMs = clock.monotonicMs();
      for (const owner of states.keys()) if (!owners.isAlive(owner)) states.delete(owner);
      for (const owner of present()) {
        const state = stateOf(owner);
        // One that is slow is not asked again meanwhile, and keeps nobody else waiting.
        if (state.running === undefined) void sample(owner, detailsDue(state));
      }
      pauseMs = Math.max(0, EVERY_MS - (clock.monotonicMs() - startedMs));
    }
    looping = false;
    states.clear();
  };

  return {
    async recent({ details, signal }) {
      askedUntilMs = clock.monotonicMs() + GOES_ON_MS;
      if (details) detailsUntilMs = askedUntilMs;
      const missing = newestMissing(view, states, details);
      const waits = present().flatMap((owner) => {
        const state = stateOf(owner);
        const newest = missing.get(owner) ?? 0n;
        return isStale(state, { details, newest, nowMs: clock.monotonicMs() })
          ? [sample(owner, details, newest)]
          : [];
      });
      if (!looping) {
        looping = true;
        options.background('statistics', loop());
      }
      if (waits.length === 0) return;
      const timer = new AbortController();
      await withJoinedSignal([signal, stopping, timer.signal], async (over) => {
        const limit = clock.sleep(WAIT_MS, over);
        // The samples may be there first, and then nobody listens to it.
        limit.catch(() => undefined);
        await Promise.race([Promise.all(waits), limit]);
        timer.abort();
      });
    },
    container: ({ id, handler }) => states.get(runtimeOwner(handler))?.containers.get(id),
    sandbox: (id) => states.get(SANDBOX_MANAGER)?.sandboxes.get(id),
  };
}

function emptySamples(): OwnerSamples {
  return {
    containers: new Map(),
    sandboxes: new Map(),
    running: undefined,
    sampledAtMs: undefined,
    begunAtNs: 0n,
    detailedAtMs: undefined,
    detailedBegunAtNs: 0n,
    failed: false,
  };
}

/** When the youngest of what an owner should have sampled, and has not, came to be. */
function newestMissing(
  view: NodeView,
  states: ReadonlyMap<OwnerName, OwnerSamples>,
  details: boolean,
): ReadonlyMap<OwnerName, bigint> {
  const newest = new Map<OwnerName, bigint>();
  const note = (
    owner: OwnerName,
    sample: ContainerSample | SandboxSample | undefined,
    atNs: bigint,
  ): void => {
    // One that was sampled before it started has no figures of a cgroup yet.
    const known = details ? sample?.detailed : sample?.latest.cgroup;
    if (known === undefined && atNs > (newest.get(owner) ?? 0n)) newest.set(owner, atNs);
  };
  for (const { record } of view.containers()) {
    if (record.phase !== ContainerPhase.RUNNING) continue;
    const owner = runtimeOwner(record.handler);
    note(owner, states.get(owner)?.containers.get(record.id), record.startedAtNs);
  }
  const sandboxes = states.get(SANDBOX_MANAGER)?.sandboxes;
  for (const { record } of view.sandboxes()) {
    if (record.phase !== SandboxPhase.READY) continue;
    note(SANDBOX_MANAGER, sandboxes?.get(record.id), view.sandboxTouchedAtNs(record.id));
  }
  return newest;
}

/** What began before the youngest came to be may lack it; what began later, and lacks it, won't get it. */
function isStale(
  state: OwnerSamples,
  need: { readonly details: boolean; readonly newest: bigint; readonly nowMs: number },
): boolean {
  const ageMs = (atMs: number | undefined) =>
    atMs === undefined ? Number.POSITIVE_INFINITY : need.nowMs - atMs;
  // Only the loop goes on asking one that failed, and nobody waits twice for one that is slow.
  if (state.failed) return false;
  if (state.running !== undefined && ageMs(state.running.sinceMs) > WAIT_MS) return false;
  const begunAtNs = need.details ? state.detailedBegunAtNs : state.begunAtNs;
  if (ageMs(state.sampledAtMs) > RECENT_MS || begunAtNs < need.newest) return true;
  return need.details && ageMs(state.detailedAtMs) > 2 * DETAILS_EVERY_MS;
}

/** Never rejects: an owner that can't be sampled has no samples. */
async function sampleOwner(
  options: StatisticsOptions,
  sampling: {
    readonly owner: OwnerName;
    readonly state: OwnerSamples;
    readonly details: boolean;
    readonly begunAtNs: bigint;
  },
): Promise<void> {
  const { owner, state, details, begunAtNs } = sampling;
  const { clock, stopping, log } = options;
  const { signal, release } = joinSignals([stopping, clock.timeout(SAMPLE_BUDGET_MS)]);
  try {
    const ask = { options, owner, state, details, signal };
    if (owner === SANDBOX_MANAGER) await sampleSandboxes(ask);
    else await sampleContainers(ask);
    state.begunAtNs = begunAtNs;
    state.sampledAtMs = clock.monotonicMs();
    if (details) {
      state.detailedAtMs = state.sampledAtMs;
      state.detailedBegunAtNs = begunAtNs;
    }
    state.failed = false;
  } catch (error) {
    state.containers.clear();
    state.sandboxes.clear();
    state.sampledAtMs = undefined;
    state.detailedAtMs = undefined;
    state.failed = true;
    log.debug({ owner, error: String(error) }, 'an owner could not be sampled');
  } finally {
    release();
  }
}

interface Ask {
  readonly options: StatisticsOptions;
  readonly owner: OwnerName;
  readonly state: OwnerSamples;
  readonly details: boolean;
  readonly signal: AbortSignal;
}

async function sampleContainers({ options, owner, state, details, signal }: Ask): Promise<void> {
  const pages = askPages((pageToken) =>
    options.ask('sample-containers', { details, pageToken }, { owner, signal }),
  );
  await takeSamples(state.containers, pages, ({ containers }) =>
    containers.map((usage) => [usage.containerId, usage]),
  );
}

async function sampleSandboxes({ options, owner, state, details, signal }: Ask): Promise<void> {
  const pages = askPages((pageToken) =>
    options.ask('sample-sandboxes', { details, pageToken }, { owner, signal }),
  );
  await takeSamples(state.sandboxes, pages, ({ sandboxes }) =>
    sandboxes.map((usage) => [usage.podSandboxId, usage]),
  );
}

/** What none of the pages has is forgotten. */
async function takeSamples<P, U extends ContainerUsage | SandboxUsage>(
  samples: Map<string, Sample<U>>,
  pages: AsyncIterable<P>,
  usagesOf: (page: P) => readonly (readonly [id: string, usage: U])[],
): Promise<void> {
  const seen = new Set<string>();
  for await (const page of pages) {
    for (const [id, usage] of usagesOf(page)) {
      seen.add(id);
      samples.set(id, nextSample(samples.get(id), usage));
    }
  }
  for (const id of samples.keys()) if (!seen.has(id)) samples.delete(id);
}
