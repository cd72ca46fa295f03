// `cribus doctor`: looks at the host and at the stack, says what to do for each finding, and with
// --fix takes leftovers of a crash away after asking.

import { createInterface } from 'node:readline/promises';
import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { listDirectory } from '@cribus/host/files.ts';
import type { Invocation } from '../arguments.ts';
import { checkCadvisor } from '../doctor/cadvisor-check.ts';
import { type Finding, ok, problem, warning } from '../doctor/finding.ts';
import { checkHost } from '../doctor/host-checks.ts';
import { findLeftovers, type Leftover } from '../doctor/leftovers.ts';
import { checkCredentials, checkHandlers, checkSocket } from '../doctor/stack-checks.ts';
import { requireRoot } from '../require-root.ts';
import { shellWord } from '../shell-word.ts';
import { currentConfig } from '../stack/generated.ts';
import { openStack, type Stack } from '../stack/open-stack.ts';
import { describeParts } from '../stack/part-report.ts';
import type { PartName } from '../stack/services.ts';
import { startHint } from '../stack/start-hint.ts';
import { hasUnits, unitOf } from '../stack/units.ts';
import { findUp } from '../stack/up-lock.ts';
import { wrapped } from '../table.ts';

const MARKS = { ok: 'ok', warning: 'warn', problem: 'BAD' } as const;
const INDENT = 24;

/** Exit code 0: nothing is wrong; 1: a problem, or leftovers that stay. */
export async function runDoctor(invocation: Invocation): Promise<number> {
  requireRoot('doctor', "it looks at other users' processes and credentials");
  const stack = await openStack(invocation);
  const current = await currentConfig(stack);
  const [own, leftovers] = await Promise.all([
    checkStack(stack, current),
    findLeftovers(stack, current),
  ]);
  // What runs, or what the next start would read.
  const read = own.isRunning ? current : stack.config;
  const host = await checkHost(read);
  const rest = [await checkSocket(current), await checkCredentials(stack.paths)];
  const lost = await checkHandlers(stack.paths, read);
  const findings = [...host, ...rest.filter((one) => one !== undefined), ...own.findings, ...lost];
  if (leftovers.length === 0) findings.push(ok('leftovers', 'none of a crash'));
  for (const finding of findings) printFinding(finding);
  const root = rootOption(stack);
  for (const { what } of leftovers) {
    printFinding(warning('left over', what, `cribus doctor --fix${root} takes it away`));
  }
  const stay = invocation.flags.has('fix')
    ? await fix(leftovers, invocation.flags.has('yes'))
    : leftovers.length;
  const bad = findings.filter(({ level }) => level === 'problem').length;
  const uneasy = findings.filter(({ level }) => level === 'warning').length;
  console.log(summary({ bad, uneasy, stay }));
  return bad === 0 && stay === 0 ? 0 : 1;
}

function summary(counts: { bad: number; uneasy: number; stay: number }): string {
  const { bad, uneasy, stay } = counts;
  if (bad + uneasy + stay === 0) return 'Nothing is wrong.';
  return `${counted(bad, 'problem')}, ${counted(uneasy, 'warning')}, ${counted(stay, 'leftover')}.`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** Parts that should run and don't; a stack that is down altogether is no problem. */
async function checkStack(
  stack: Stack,
  config: Config,
): Promise<{ readonly isRunning: boolean; readonly findings: readonly Finding[] }> {
  const parts = await describeParts(stack, config);
  if (parts.every(({ state }) => state === 'dead')) {
    return { isRunning: false, findings: [await checkRest(stack)] };
  }
  const logOf = await logPlaces(stack, config);
  const findings = parts.map(({ name, state, pid }) => {
    if (state === 'running') return ok(name, pid === undefined ? 'running' : `running, pid ${pid}`);
    const text = state === 'dead' ? 'it does not run' : 'it runs and does not answer';
    return problem(name, text, `its log says why: ${logOf(name)}`);
  });
  return { isRunning: true, findings: [...findings, ...(await checkCadvisor(config))] };
}

/** Pods of a stack that is down run on, and hold their addresses and ports. */
async function checkRest(stack: Stack): Promise<Finding> {
  const pods = (await listDirectory(stack.paths.sandboxes)).length;
  if (pods === 0) return ok('stack', 'it is not running');
  const root = rootOption(stack);
  return warning(
    'stack',
    `it is not running, and ${counted(pods, 'pod')} of it ${pods === 1 ? 'is' : 'are'} on record`,
    `"${startHint(stack)}" takes them on again, "cribus down${root} --pods" removes them`,
  );
}

/** `cribus up` keeps logs in files, which stay when it is gone, and systemd in its journal. */
async function logPlaces(stack: Stack, config: Config): Promise<(name: PartName) => string> {
  const inJournal = hasUnits(stack) && (await findUp(stack.paths.roots)) === undefined;
  return (name) =>
    inJournal ? `journalctl -u ${unitOf(name)}` : `${config.roots.log}/${name}.log`;
}

function rootOption({ directory }: Stack): string {
  return directory === undefined ? '' : ` --root ${shellWord(directory)}`;
}

function printFinding({ about, level, text, advice }: Finding): void {
  const head = `${MARKS[level].padEnd(5)} ${about.padEnd(INDENT - 7)} ${text}`;
  for (const line of wrapped(head, ' '.repeat(INDENT))) console.log(line);
  if (advice === undefined) return;
  for (const line of wrapped(`${' '.repeat(INDENT)}→ ${advice}`, ' '.repeat(INDENT + 2))) {
    console.log(line);
  }
}

/** How many stay. Raises invalid_argument where nobody can be asked. */
async function fix(leftovers: readonly Leftover[], yes: boolean): Promise<number> {
  if (leftovers.length === 0) return 0;
  if (!yes && !(await agreed(leftovers.length))) {
    console.log('Nothing was changed.');
    return leftovers.length;
  }
  let stay = 0;
  for (const { what, remove } of leftovers) {
    try {
      await remove();
      console.log(`Taken away: ${what}`);
    } catch (error) {
      stay += 1;
      console.error(`Not taken away: ${what}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return stay;
}

async function agreed(count: number): Promise<boolean> {
  if (!process.stdin.isTTY) {
    throw new Failure(
      'invalid_argument',
      'doctor --fix asks first, and nobody is there: add --yes',
    );
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    const answer = await terminal.question(`Take ${counted(count, 'leftover')} away? [y/N] `);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}
