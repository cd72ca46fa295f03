// `npm run bench`: this stack beside containerd and the bare tools, in turns, and one table of what
// came out. It asserts no time: how to read the table is in docs/bench.md.

import { parseArgs } from 'node:util';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { busyboxLayer, startTestRegistry } from '../e2e/harness/images.ts';
import { containerdVersion, startContainerd } from './containerd.ts';
import { startCribus } from './cribus.ts';
import { type Floor, openFloor } from './floor.ts';
import { removeAll } from './pods.ts';
import { fillAndRead, measureFloor, measureMemory, measureRound } from './rounds.ts';
import type { Subject } from './subject.ts';
import { renderTable, Samples } from './table.ts';

const CGROUP = `/cribus-bench-${process.pid}`;

interface Options {
  readonly rounds: number;
  readonly pods: number;
  readonly only: string | undefined;
  readonly overhead: boolean;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      pods: { type: 'string', default: '50' },
      only: { type: 'string' },
      overhead: { type: 'boolean', default: false },
    },
  });
  const rounds = Number(values.rounds);
  const pods = Number(values.pods);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new Error(`--rounds ${values.rounds}: 1 to 100`);
  }
  if (!Number.isInteger(pods) || pods < 1 || pods > 200) {
    throw new Error(`--pods ${values.pods}: 1 to 200`);
  }
  if (values.only !== undefined && values.only !== 'cribus') {
    throw new Error(`--only ${values.only}: cribus`);
  }
  return { rounds, pods, only: values.only, overhead: values.overhead };
}

/** Undone last to first, whatever happens. */
const undo: (() => Promise<void>)[] = [];

async function main(): Promise<void> {
  const options = readOptions();
  const cgroups = detectCgroups();
  undo.push(async () => cgroups.remove(CGROUP));
  const parent = (name: string) => {
    cgroups.create(`${CGROUP}/${name}`);
    return `${CGROUP}/${name}`;
  };
  const registry = await startTestRegistry();
  undo.push(() => registry.stop());
  if (options.overhead) {
    const { measureOverhead } = await import('./overhead.ts');
    const at = { image: registry.busybox, cgroupParent: parent('overhead'), say };
    const { samples, columns } = await measureOverhead(at);
    for (const line of ['', ...renderTable(samples, columns, { ratios: false })]) say(line);
    return;
  }
  const subjects: Subject[] = [];
  const keep = (subject: Subject) => {
    subjects.push(subject);
    undo.push(() => subject.stop());
    undo.push(() => removeAll(subject));
  };
  say('Starting cribus on a root of its own.');
  keep(await startCribus({ image: registry.busybox, cgroupParent: parent('cribus') }));
  const alone = options.only === 'cribus';
  const version = alone ? undefined : containerdVersion();
  if (version === undefined) {
    const why = alone ? 'As asked' : 'No containerd on the PATH (apt-get install containerd)';
    say(`${why}: cribus is measured without it.`);
  } else {
    say(`Starting containerd ${version} on a root of its own.`);
    const pauseImage = await pushPause(registry);
    const cgroupParent = parent('containerd');
    keep(await startContainerd({ image: registry.busybox, pauseImage, cgroupParent }));
  }
  const floor = alone ? undefined : await openFloor(parent('floor'));
  if (floor !== undefined) undo.push(() => floor.destroy());
  const samples = await measure(options, subjects, floor);
  const columns = [...subjects.map((subject) => subject.name), ...(floor ? ['floor'] : [])];
  say('');
  for (const line of renderTable(samples, columns)) say(line);
}

async function measure(
  options: Options,
  subjects: readonly Subject[],
  floor: Floor | undefined,
): Promise<Samples> {
  const samples = new Samples();
  const idle = new Samples();
  say('Memory at rest.');
  await measureMemory(subjects, { samples: idle, pods: 0 });
  for (let round = 0; round < options.rounds; round += 1) {
    say(`Round ${round + 1} of ${options.rounds}.`);
    // Whoever comes first finds a colder machine: they take turns.
    const order = round % 2 === 0 ? subjects : [...subjects].reverse();
    for (const subject of order) await measureRound(subject, samples);
    if (floor !== undefined) await measureFloor(floor, samples);
  }
  say(`Reads and memory at ${options.pods} pods.`);
  await fillAndRead(subjects, { samples, pods: options.pods, rounds: options.rounds });
  for (const row of idle.names()) {
    for (const { name } of subjects) samples.add(row, name, idle.median(row, name) ?? Number.NaN);
  }
  await measureMemory(subjects, { samples, pods: options.pods });
  return samples;
}

/** What keeps containerd's sandbox: a process that only waits. */
async function pushPause(registry: { readonly url: string; readonly host: string }) {
  const config = { Cmd: ['/bin/sleep', '1000000'], Env: ['PATH=/bin'], WorkingDir: '/' };
  const image = buildImage({ layers: [busyboxLayer()], config });
  const target = {
    registry: registry.url,
    repository: 'bench/pause',
    signal: AbortSignal.timeout(30_000),
  };
  await pushImage(image, ['1'], target);
  return `${registry.host}/bench/pause:1`;
}

function say(line: string): void {
  console.log(line);
}

async function cleanUp(): Promise<void> {
  for (const step of undo.splice(0).reverse()) {
    try {
      await step();
    } catch (error) {
      process.exitCode = 1;
      console.error('Left behind:', error);
    }
  }
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    say('Interrupted; taking everything down.');
    void cleanUp().then(() => process.exit(130));
  });
}
if (process.geteuid?.() !== 0) {
  console.error('The bench needs root: it makes pods. Try it with sudo.');
  process.exit(1);
}
try {
  await main();
} finally {
  await cleanUp();
}
// Connections of gRPC clients must not keep a finished bench.
process.exit();
