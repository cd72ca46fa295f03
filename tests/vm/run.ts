// `npm run e2e:vm`: makes the machine, boots it with this tree, and prints what its tests say. The
// last word of the tests decides the exit code.

import { join } from 'node:path';
import { systemClock } from '@cribus/host/clock.ts';
import { provideBaseImage } from './machine/base-image.ts';
import { boot } from './machine/boot.ts';
import { makeTreeDisk } from './machine/tree-disk.ts';

/** A whole run takes some twenty minutes on two cores. */
const BUDGET_MS = 60 * 60_000;

const [tree = '', ...only] = process.argv.slice(2);
const say = (line: string) => console.log(`· ${line}`);
const image = await provideBaseImage(join(tree, '.setup', 'vm', 'base'), say);
const treeDisk = join(tree, '.setup', 'vm', 'tree.img');
await makeTreeDisk(tree, treeDisk);
say('Booting it; software emulation is about ten times slower than this machine');
const began = systemClock.monotonicMs();
const life = await boot({
  image,
  tree: treeDisk,
  settings: { only: only.join(',') },
  onOutput: (text) => void process.stdout.write(text),
  signal: systemClock.timeout(BUDGET_MS),
});
const minutes = ((systemClock.monotonicMs() - began) / 60_000).toFixed(1);
const counts = (pattern: RegExp) =>
  [...life.said.matchAll(pattern)].reduce((sum, [, count]) => sum + Number(count), 0);
const passed = counts(/^ *(\d+) passing/gm);
const failed = counts(/^ *(\d+) failing/gm);
const whole = /^all phases ended$/m.test(life.said);
if (!whole) console.log(`The machine ended before its tests did. Its console:\n${life.console}`);
console.log(`${passed} passed, ${failed} failed in the machine (${minutes} min)`);
process.exitCode = whole && failed === 0 && passed > 0 ? 0 : 1;
