// `pnpm conformance`: runs the critest of the PATH against a stack of its own for each handler, and
// says what passed, failed and was skipped. scripts/conformance.mjs starts it in namespaces of its own
// and holds its standard input: when that ends, everything is taken down.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../e2e/harness/stack.ts';
import { HANDLERS, type Handler, type Options, parseOptions, USAGE } from './arguments.ts';
import { runCritest } from './critest.ts';
import { openWorkshop, startNode, type Workshop } from './node.ts';
import {
  conformancePage,
  type HandlerResults,
  type Host,
  resultLines,
  summaryLine,
  unexplained,
} from './report.ts';

const DOCS = join(PROJECT_ROOT, 'docs', 'conformance.md');

async function main(
  critest: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  const options = parseOptions(args);
  const outcomes: HandlerResults[] = [];
  console.log(`Making the images that critest pulls, and serving them on loopback.`);
  const workshop = await openWorkshop(critest);
  try {
    for (const handler of options.handlers) {
      outcomes.push(...(await runHandler(workshop, { handler, options, signal })));
    }
  } finally {
    if (options.keep !== undefined) await keepReports(workshop.directory, options.keep);
    await workshop.close();
  }
  console.log('');
  for (const outcome of outcomes) console.log(summaryLine(outcome));
  const faults = outcomes.flatMap((outcome) =>
    unexplained(outcome).map(({ name }) => `${outcome.handler}: ${name}`),
  );
  for (const fault of faults) console.log(`failed, and no limit explains it: ${fault}`);
  if (options.writeDocs) await writeFile(DOCS, conformancePage(lastOfEach(outcomes), hostFacts()));
  return faults.length === 0 ? 0 : 1;
}

/** All runs of one handler, on one stack. */
async function runHandler(
  workshop: Workshop,
  work: { readonly handler: Handler; readonly options: Options; readonly signal: AbortSignal },
): Promise<HandlerResults[]> {
  const { handler, options, signal } = work;
  signal.throwIfAborted();
  const outcomes: HandlerResults[] = [];
  const stack = await startNode(workshop);
  try {
    for (let run = 1; run <= options.runs; run += 1) {
      console.log(`\n${describeRun(handler, run, options)}`);
      const results = await runCritest({
        program: workshop.critest,
        endpoint: stack.cri.endpoint,
        handler,
        parallel: options.parallel,
        websocket: options.websocket,
        focus: options.focus,
        directory: workshop.directory,
        name: `${handler}-${run}`,
        signal,
      });
      const outcome = { handler, results };
      for (const line of resultLines(outcome)) console.log(line);
      outcomes.push(outcome);
    }
  } finally {
    if (options.keep !== undefined) await keepServiceLogs(stack.root, join(options.keep, handler));
    await stack.destroy();
  }
  return outcomes;
}

function describeRun(handler: Handler, run: number, options: Options): string {
  const how = options.parallel === 1 ? 'serially' : `in ${options.parallel} processes`;
  const streams = options.websocket ? ', streams by WebSocket' : '';
  return `critest for ${handler}, ${how}${streams}, run ${run} of ${options.runs}:`;
}

function lastOfEach(outcomes: readonly HandlerResults[]): HandlerResults[] {
  return HANDLERS.flatMap((handler) => {
    const last = outcomes.findLast((outcome) => outcome.handler === handler);
    return last === undefined ? [] : [last];
  });
}

async function keepReports(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    if (/\.(?:xml|log)$/.test(name)) await copyFile(join(from, name), join(to, name));
  }
}

async function keepServiceLogs(root: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true });
  await cp(join(root, 'log'), to, { recursive: true });
}

function hostFacts(): Host {
  const v2 = existsSync('/sys/fs/cgroup/cgroup.controllers');
  const version = (engine: string) =>
    execFileSync(engine, ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? '';
  return {
    kernel: release().replace(/-.*/, ''),
    cgroups: v2 ? 'cgroup v2' : 'cgroup v1',
    engines: { runc: version('runc'), crun: version('crun'), gvisor: version('runsc') },
  };
}

const ending = new AbortController();
process.stdin.on('error', () => ending.abort()).on('close', () => ending.abort());
process.stdin.resume();
const [critest = '', ...args] = process.argv.slice(2);
try {
  if (args.some((word) => word === '--help' || word === '-h')) console.log(USAGE);
  else process.exitCode = await main(critest, args, ending.signal);
} catch (error) {
  if (!ending.signal.aborted) console.error(error instanceof Error ? error.message : error);
  process.exitCode = ending.signal.aborted ? 130 : 1;
}
process.exit();
