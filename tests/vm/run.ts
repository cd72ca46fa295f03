// `npm run e2e:vm`: makes the machine, boots it with this tree, and prints what its tests say. They
// decide the exit code, and a phase that told nothing counts as failed.

import { join } from 'node:path';
import { systemClock } from '@cribus/host/clock.ts';
import { provideBaseImage } from './machine/base-image.ts';
import { boot } from './machine/boot.ts';
import { makeTreeDisk } from './machine/tree-disk.ts';
import { planPhases, REBOOT } from './phases.ts';

/** A whole run takes half an hour at most on two cores, and half as long again with critest. */
const BUDGET_MS = 120 * 60_000;

const [tree = '', critest = '', ...named] = process.argv.slice(2);
const say = (line: string) => console.log(`· ${line}`);
try {
  process.exitCode = await run(planPhases(named, critest !== ''));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

async function run(phases: readonly string[]): Promise<number> {
  if (named.length === 0 && critest === '') say('critest is not on the PATH, so it is left out');
  const image = await provideBaseImage(join(tree, '.setup', 'vm', 'base'), say);
  const treeDisk = join(tree, '.setup', 'vm', 'tree.img');
  await makeTreeDisk(tree, { file: treeDisk, critest });
  say('Booting it; software emulation is about ten times slower than this machine');
  const began = systemClock.monotonicMs();
  const life = await boot({
    image,
    tree: treeDisk,
    settings: { phases: phases.join(',') },
    onOutput: (text) => void process.stdout.write(text),
    signal: systemClock.timeout(BUDGET_MS),
  });
  const minutes = ((systemClock.monotonicMs() - began) / 60_000).toFixed(1);
  if (!/^all phases ended$/m.test(life.said)) {
    console.log(`The machine ended before its tests did. Its console:\n${life.console}`);
  }
  const { passed, failed, silent } = count(life.said, phases);
  for (const name of silent) console.log(`Nothing passed in the phase ${name}.`);
  console.log(`${passed} passed, ${failed} failed in the machine (${minutes} min)`);
  return failed === 0 && silent.length === 0 ? 0 : 1;
}

/** What mocha said in each phase. */
function count(said: string, phases: readonly string[]) {
  const sum = (text: string, pattern: RegExp) =>
    [...text.matchAll(pattern)].reduce((total, [, number]) => total + Number(number), 0);
  const parts = said.split(/^== /m).map((text) => ({ name: text.split(' ')[0] ?? '', text }));
  const silent = phases
    .filter((name) => name !== REBOOT)
    .filter((name) => {
      const text = parts.find((part) => part.name === name)?.text ?? '';
      return sum(text, /^ *(\d+) passing/gm) === 0;
    });
  const passed = sum(said, /^ *(\d+) passing/gm);
  return { passed, failed: sum(said, /^ *(\d+) failing/gm), silent };
}
