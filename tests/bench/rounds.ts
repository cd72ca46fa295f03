// What one subject does in one round, and what is asked of it when it is full.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Floor } from './floor.ts';
import { proportionalMegabytes } from './memory.ts';
import { type BenchPod, execTrue, READS, removeAll, startPod, stopPod } from './pods.ts';
import { type Subject, timed } from './subject.ts';
import type { Samples } from './table.ts';

const SEQUENTIAL_PODS = 5;
const PARALLEL_PODS = 10;
const EXECS = 15;
const PARALLEL_EXECS = 8;
/** Reads of one kind at a time, so that the subjects alternate often. */
const READ_BLOCK = 40;
const READ_BLOCKS = 5;
const FILL_AT_ONCE = 5;
/** Collectors give back what a burst took only after a while, Go's as well as ours. */
const REST_MS = 30_000;

const ROW = {
  start: 'start a pod, one by one: ms',
  run: '  RunPodSandbox: ms',
  create: '  CreateContainer: ms',
  startContainer: '  StartContainer: ms',
  stop: 'stop and remove it: ms',
  starts: '10 at once: start of each: ms',
  allStarts: '10 at once: all of them started: ms',
  stops: '10 at once: stop of each: ms',
  exec: 'ExecSync true: ms',
  execs: 'ExecSync true, 8 at once: each: ms',
} as const;

/** Pods one by one, then ten at once, and commands in one of them. */
export async function measureRound(subject: Subject, samples: Samples): Promise<void> {
  const { name } = subject;
  for (let index = 0; index < SEQUENTIAL_PODS; index += 1) {
    const times = await startPod(subject);
    samples.add(ROW.start, name, times.totalMs);
    samples.add(ROW.run, name, times.runMs);
    samples.add(ROW.create, name, times.createMs);
    samples.add(ROW.startContainer, name, times.startMs);
    if (index === SEQUENTIAL_PODS - 1) await measureExec(subject, times.pod, samples);
    samples.add(ROW.stop, name, await timed(() => stopPod(subject, times.pod.podSandboxId)));
  }
  let started: Awaited<ReturnType<typeof startPod>>[] = [];
  const allMs = await timed(async () => {
    started = await Promise.all(Array.from({ length: PARALLEL_PODS }, () => startPod(subject)));
  });
  samples.add(ROW.starts, name, ...started.map((times) => times.totalMs));
  samples.add(ROW.allStarts, name, allMs);
  const stopMs = await Promise.all(
    started.map(({ pod }) => timed(() => stopPod(subject, pod.podSandboxId))),
  );
  samples.add(ROW.stops, name, ...stopMs);
}

async function measureExec(subject: Subject, pod: BenchPod, samples: Samples): Promise<void> {
  const { name } = subject;
  const once = () => timed(() => execTrue(subject, pod.containerId));
  for (let index = 0; index < EXECS; index += 1) samples.add(ROW.exec, name, await once());
  const together = await Promise.all(Array.from({ length: PARALLEL_EXECS }, once));
  samples.add(ROW.execs, name, ...together);
}

/** The same by direct calls. */
export async function measureFloor(floor: Floor, samples: Samples): Promise<void> {
  for (let index = 0; index < SEQUENTIAL_PODS; index += 1) {
    let pod = { id: '', directory: '', pid: 0, result: {} };
    const startMs = await timed(async () => {
      pod = await floor.start();
    });
    samples.add(ROW.start, 'floor', startMs);
    samples.add(ROW.exec, 'floor', await timed(() => floor.exec(pod)));
    samples.add(ROW.stop, 'floor', await timed(() => floor.stop(pod)));
  }
  const pods: Awaited<ReturnType<Floor['start']>>[] = [];
  const allMs = await timed(async () => {
    const each = Array.from({ length: PARALLEL_PODS }, () =>
      timed(async () => {
        pods.push(await floor.start());
      }),
    );
    samples.add(ROW.starts, 'floor', ...(await Promise.all(each)));
  });
  samples.add(ROW.allStarts, 'floor', allMs);
  const stops = await Promise.all(pods.map((pod) => timed(() => floor.stop(pod))));
  samples.add(ROW.stops, 'floor', ...stops);
}

/** Brings each to the number of pods, then reads in turns. */
export async function fillAndRead(
  subjects: readonly Subject[],
  options: { readonly samples: Samples; readonly pods: number; readonly rounds: number },
): Promise<void> {
  const { samples, pods, rounds } = options;
  const probes = new Map<Subject, BenchPod>();
  for (const subject of subjects) {
    await removeAll(subject);
    for (let done = 0; done < pods; done += FILL_AT_ONCE) {
      const count = Math.min(FILL_AT_ONCE, pods - done);
      const started = await Promise.all(Array.from({ length: count }, () => startPod(subject)));
      const [first] = started;
      if (first !== undefined) probes.set(subject, first.pod);
    }
  }
  for (const [read, call] of Object.entries(READS)) {
    for (let block = 0; block < READ_BLOCKS * rounds; block += 1) {
      for (const [subject, pod] of probes) {
        for (let index = 0; index < READ_BLOCK; index += 1) {
          const ms = await timed(() => call(subject, pod));
          // The first ones of a block warm up what the other's block has cooled.
          if (index >= READ_BLOCK / 4) samples.add(`${read} at ${pods} pods: ms`, subject.name, ms);
        }
      }
    }
  }
}

/** Everything that runs for each, but the workload and pause processes, after a rest of all. */
export async function measureMemory(
  subjects: readonly Subject[],
  options: { readonly samples: Samples; readonly pods: number },
): Promise<void> {
  await sleep(REST_MS);
  for (const subject of subjects) {
    const megabytes = proportionalMegabytes(await subject.processes());
    options.samples.add(`memory at ${options.pods} pods: MB PSS`, subject.name, megabytes);
  }
}
