// What is said at the end of a run of all tests: the count, and the exit status with it.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, it } from 'mocha';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

describe('a run of all tests', () => {
  let base: string;

  before(() => {
    base = mkdtempSync(join(tmpdir(), 'cribus-tidy-'));
  });
  after(() => rmSync(base, { recursive: true, force: true }));

  it('calls npm test from .ci/run, and ends with its count and its status', () => {
    const lines = 'ok  types (1.0 s)\\n12 passed, 1 failed\\n';
    const failed = ciRun(`[ "$*" = test ] && printf '${lines}'; echo bye >&2; exit 1`);
    assert.deepEqual([failed.status, failed.last], [1, '12 passed, 1 failed']);
    const passed = ciRun(`printf '12 passed, 0 failed\\n'`);
    assert.deepEqual([passed.status, passed.last], [0, '12 passed, 0 failed']);
    const nothing = ciRun('exit 3');
    assert.deepEqual([nothing.status, nothing.last], [3, '0 passed, 1 failed']);
  });

  it('counts what mocha counted, one for any other step, and a failure for each bad exit', () => {
    const script = `import { runStep, total } from './scripts/run-step.mjs';
const results = [];
for (const text of process.argv.slice(1)) results.push(await runStep('a step', 'sh', ['-c', text]));
console.log(JSON.stringify([...results, total(results)]));`;
    const steps = [
      "printf '  7 passing (2s)\\n'",
      "printf '  7 passing (2s)\\n  2 failing\\n'; exit 2",
      "printf '  7 passing (2s)\\n'; exit 1",
      'true',
      'exit 1',
      'kill -KILL $$',
    ];
    const args = ['--input-type=module', '-e', script, ...steps];
    const output = execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
    const counts = (JSON.parse(output.trimEnd().split('\n').at(-1) ?? '') as Counts[]).map(
      ({ passed, failed }) => `${passed}/${failed}`,
    );
    assert.deepEqual(counts, ['7/0', '7/2', '7/1', '1/0', '0/1', '0/1', '22/5']);
  });

  /** With a stand-in for npm. */
  function ciRun(npm: string): { readonly status: number | null; readonly last: string } {
    const program = join(base, 'npm');
    writeFileSync(program, `#!/bin/sh\n${npm}\n`);
    chmodSync(program, 0o755);
    const { status, stdout } = spawnSync(join(root, '.ci', 'run'), {
      cwd: base,
      encoding: 'utf8',
      env: { ...process.env, PATH: `${base}:${process.env['PATH']}` },
    });
    return { status, last: stdout.trimEnd().split('\n').at(-1) ?? '' };
  }
});

interface Counts {
  readonly passed: number;
  readonly failed: number;
}
