// `npm test`: sets up, then runs every check and every test, and ends with their count.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check } from './check.mjs';
import { runStep, total } from './run-step.mjs';
import { setupOrExit } from './setup.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
await setupOrExit();
const results = [await check()];
for (const suite of ['e2e', 'faults']) {
  results.push(
    await runStep(`${suite} tests`, process.execPath, [join(root, 'scripts/mocha.mjs'), suite], {
      cwd: root,
    }),
  );
}
const { passed, failed } = total(results);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
