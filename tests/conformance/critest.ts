// Runs the critest of the PATH against a CRI socket and reads its report.

import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readJunit, type SpecResult } from './junit.ts';
import { startParallelServer } from './parallel-server.ts';

/** The digest that critest v1.36 has of gcr.io/k8s-staging-cri-tools/test-image-digest (consts.go). */
const DIGEST = '9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf';
/** A serial run takes about four minutes on two cores. */
const TIMEOUT = '1h';

export interface Run {
  /** Of preparedCritest. */
  readonly program: string;
  /** As unix:///run/cribus/cribus.sock. */
  readonly endpoint: string;
  readonly handler: string;
  readonly parallel: number;
  readonly websocket: boolean;
  readonly focus: string;
  /** Gets NAME.xml, NAME.log and, of further processes, NAME.<n>.log. */
  readonly directory: string;
  readonly name: string;
  /** Called with each line of critest's first process. */
  readonly signal: AbortSignal;
}

/**
 * A copy of the program that knows our image by its digest: 64 characters are exchanged for as many.
 * Raises an Error where it is another version than v1.36.
 */
export async function preparedCritest(
  original: string,
  copy: { readonly directory: string; readonly digest: string },
): Promise<string> {
  const data = await readFile(original);
  const found: number[] = [];
  for (let at = data.indexOf(DIGEST); at >= 0; at = data.indexOf(DIGEST, at + 1)) found.push(at);
  if (found.length === 0) {
    throw new Error(`${original} is not critest v1.36: it does not name the image digest of v1.36`);
  }
  for (const at of found) data.write(copy.digest.replace(/^sha256:/, ''), at, 'latin1');
  const path = join(copy.directory, 'critest');
  await writeFile(path, data);
  await chmod(path, 0o755);
  return path;
}

/** Runs all the specs once. Raises an Error with the end of the log where there is no report. */
export async function runCritest(run: Run): Promise<SpecResult[]> {
  const seed = String(1 + Math.floor(Math.random() * 1_000_000));
  const log = createWriteStream(join(run.directory, `${run.name}.log`));
  try {
    if (run.parallel === 1) await runProcess(run, { args: argumentsOf(run, seed), log, env: {} });
    else await runTogether(run, { seed, log });
  } finally {
    await new Promise((resolve) => log.end(resolve));
  }
  return readReport(run);
}

async function readReport(run: Run): Promise<SpecResult[]> {
  run.signal.throwIfAborted();
  try {
    const results = readJunit(await readFile(reportOf(run), 'utf8'));
    if (results.length === 0) throw new Error('critest ran no spec');
    return results;
  } catch (error) {
    const text = await readFile(join(run.directory, `${run.name}.log`), 'utf8');
    const end = text.trimEnd().split('\n').slice(-30).join('\n');
    throw new Error(`critest gave no results: ${(error as Error).message}\n${end}`);
  }
}

function reportOf(run: Run): string {
  return join(run.directory, `${run.name}.xml`);
}

function argumentsOf(run: Run, seed: string): string[] {
  const streams = ['exec', 'attach', 'portforward'].map((name) => `-websocket-${name}`);
  return [
    `-runtime-endpoint=${run.endpoint}`,
    `-image-endpoint=${run.endpoint}`,
    `-runtime-handler=${run.handler}`,
    `--ginkgo.junit-report=${reportOf(run)}`,
    '--ginkgo.no-color',
    `--ginkgo.timeout=${TIMEOUT}`,
    `--ginkgo.seed=${seed}`,
    ...(run.focus === '' ? [] : [`--ginkgo.focus=${run.focus}`]),
    ...(run.websocket ? streams : []),
  ];
}

/** The first process writes the report of all. */
async function runTogether(
  run: Run,
  shared: { readonly seed: string; readonly log: WriteStream },
): Promise<void> {
  const server = await startParallelServer(run.parallel, (text) => shared.log.write(text));
  try {
    const processes = Array.from({ length: run.parallel }, async (_, index) => {
      const number = index + 1;
      const log =
        number === 1
          ? shared.log
          : createWriteStream(join(run.directory, `${run.name}.${number}.log`));
      const args = [
        ...argumentsOf(run, shared.seed),
        `--ginkgo.parallel.process=${number}`,
        `--ginkgo.parallel.total=${run.parallel}`,
        `--ginkgo.parallel.host=${server.address}`,
      ];
      await runProcess(run, { args, log, env: { GINKGO_PARALLEL_PROTOCOL: 'HTTP' } });
      server.ended(number);
      if (log !== shared.log) log.end();
    });
    await Promise.all(processes);
  } finally {
    server.close();
  }
}

/** Resolves when it has ended, however: what came of it is in the report. */
function runProcess(
  run: Run,
  how: {
    readonly args: readonly string[];
    readonly log: WriteStream;
    readonly env: Readonly<Record<string, string>>;
  },
): Promise<void> {
  const child: ChildProcess = spawn(run.program, how.args, {
    cwd: run.directory,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      TMPDIR: process.env['CRITEST_TMPDIR'] ?? tmpdir(),
      ...how.env,
    },
  });
  child.stdout?.pipe(how.log, { end: false });
  child.stderr?.pipe(how.log, { end: false });
  const kill = () => child.kill('SIGKILL');
  run.signal.addEventListener('abort', kill);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      run.signal.removeEventListener('abort', kill);
      resolve();
    });
  });
}
