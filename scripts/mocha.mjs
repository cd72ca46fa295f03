// Runs one suite of mocha tests on the pinned Node, which runs TypeScript as it is.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pinnedNode } from './pinned-node.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const SUITES = {
  unit: [
    'packages/*/src/**/*.test.ts',
    'services/*/src/**/*.test.ts',
    'tests/tidy/**/*.test.ts',
    'tests/bench/**/*.test.ts',
    'tests/conformance/**/*.test.ts',
    'tests/vm/*.test.ts',
    'deploy/**/*.test.ts',
  ],
  e2e: ['tests/e2e/**/*.test.ts'],
  kubelet: ['tests/kubelet/*.test.ts'],
  faults: ['tests/faults/**/*.test.ts'],
};

const [suite = 'unit', ...rest] = process.argv.slice(2);
const patterns = SUITES[suite] ?? [suite];
const args = [
  join(root, 'node_modules/mocha/bin/mocha.js'),
  '--timeout',
  suite === 'unit' ? '60000' : '300000',
  '--exit',
  '--require',
  join(root, 'scripts/mocha-hooks.mjs'),
  // Unit tests wait for programs more than they compute, and share nothing; the others look at the
  // whole host for what they may have left.
  ...(suite === 'unit' ? ['--parallel', '--jobs', '3'] : []),
  ...patterns,
  ...rest,
];
const result = spawnSync(pinnedNode(root), args, {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, NODE_OPTIONS: '--disable-warning=ExperimentalWarning' },
});
process.exitCode = result.status ?? 1;
