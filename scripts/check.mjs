// `pnpm check`: generated files, types, lint and format, then the unit tests with the walls between
// packages. Counts what it ran.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pinnedNode } from './pinned-node.mjs';
import { runStep, total } from './run-step.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

export async function check() {
  const fresh = mkdtempSync(join(tmpdir(), 'cribus-generated-'));
  const bin = (name) => join(root, 'node_modules', '.bin', name);
  const at = { cwd: root, quiet: true };
  const results = await Promise.all([
    runStep('types', bin('tsc'), ['--noEmit', '-p', 'tsconfig.json'], at),
    runStep('lint and format', bin('biome'), ['check', '.'], at),
    runStep(
      'generated files are up to date',
      'sh',
      [
        '-c',
        '"$1" scripts/generate.mjs "$2" && diff -r "$2" packages/contracts/src/gen',
        'sh',
        pinnedNode(root),
        fresh,
      ],
      at,
    ),
  ]);
  rmSync(fresh, { recursive: true, force: true });
  results.push(
    await runStep('unit tests', process.execPath, [join(root, 'scripts/mocha.mjs'), 'unit'], {
      cwd: root,
    }),
  );
  return total(results);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { passed, failed } = await check();
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
