// What is written for people, as far as a program can read it: that the documents have what readers
// look for, name commands that exist, and give a reason for each dependency.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

interface Manifest {
  readonly type?: string;
  readonly scripts?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

function listed(...patterns: readonly string[]): string[] {
  const args = ['ls-files', '-co', '--exclude-standard', '--', ...patterns];
  const output = execFileSync('git', args, { cwd: root, encoding: 'utf8' });
  return output.split('\n').filter((path) => path !== '' && existsSync(join(root, path)));
}

function textOf(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

function manifests(): ReadonlyMap<string, Manifest> {
  const paths = listed('package.json', '*/package.json');
  return new Map(paths.map((path) => [path, JSON.parse(textOf(path)) as Manifest]));
}

describe('the words', () => {
  it('of the README say what it is and for whom, the two commands, the parts, how to point crictl and a kubelet at it, and what is missing', () => {
    const readme = textOf('README.md');
    for (const wanted of [
      /is a Kubernetes container runtime \(CRI v1\)/,
      /^It is for people who /m,
      /^npm start$/m,
      /^npm test$/m,
      /crictl --runtime-endpoint unix:\/\//,
      /--container-runtime-endpoint=unix:\/\//,
      /^kind: RuntimeClass$/m,
      /^## What it does not do yet$/m,
    ]) {
      assert.match(readme, wanted);
    }
    const picture = /```\n([^`]*[┌▶][^`]*)```/.exec(readme)?.[1] ?? '';
    const parts =
      'cri-gateway image-service sandbox-manager runtime-runc runtime-gvisor NATS Redis';
    for (const part of parts.split(' ')) {
      assert.ok(picture.includes(part), `${part} is in the picture`);
    }
  });

  it('of ARCHITECTURE.md are a view from above, a map of the code and invariants, in 300 lines', () => {
    const text = textOf('ARCHITECTURE.md');
    assert.ok(text.trimEnd().split('\n').length <= 300);
    assert.match(text, /bird/i);
    const held = /^## What must always hold$([\s\S]*?)^## /m.exec(text)?.[1] ?? '';
    assert.ok([...held.matchAll(/^\d+\. \*\*/gm)].length >= 10, 'invariants are numbered');
    const places = listed('packages/*/package.json', 'services/*/package.json').map(dirname);
    assert.ok(places.length >= 11, `saw only ${places.length} packages`);
    const missing = places.filter((place) => {
      const name = place.replace(/^.*\//, '');
      return !text.includes(name) && !text.includes(`${place.replace(/[^-]*$/, '')}*`);
    });
    assert.deepEqual(missing, [], 'each package is on the map');
  });

  it('of CHANGELOG.md tell of the version that this is', () => {
    const { version } = JSON.parse(textOf('package.json')) as { version: string };
    assert.match(
      textOf('CHANGELOG.md'),
      new RegExp(`^## .*${version.replaceAll('.', '\\.')}`, 'm'),
    );
  });

  it('name scripts that exist, and each script runs without pnpm on the PATH', () => {
    const scripts = manifests().get('package.json')?.scripts ?? {};
    const documents = listed('*.md');
    const named = documents.flatMap((path) =>
      [...textOf(path).matchAll(/\bp?npm run ([a-z0-9]+)/g)].map((match) => ({
        path,
        name: match[1],
      })),
    );
    assert.ok(named.length >= 3, `saw only ${named.length} commands`);
    assert.deepEqual(
      named.filter(({ name }) => scripts[name ?? ''] === undefined),
      [],
    );
    for (const name of [
      'start',
      'test',
      'setup',
      'check',
      'bench',
      'e2e',
      'unit',
      'lint',
      'types',
    ]) {
      assert.match(scripts[name] ?? '', /^(node scripts\/|biome |tsc )/, name);
    }
  });

  it('give a reason for each dependency, and for none that is not there', () => {
    const all = [...manifests().values()].flatMap((manifest) =>
      Object.keys({
        ...manifest.dependencies,
        ...manifest.devDependencies,
        ...manifest.optionalDependencies,
      }),
    );
    const used = new Set(all.filter((name) => !/^@(cribus|types)\//.test(name)));
    assert.ok(used.size >= 20, `saw only ${used.size} dependencies`);
    const rows = [...textOf('docs/dependencies.md').matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)]
      .filter(([, names]) => names !== 'Dependency')
      .map(([, names = '', why = '']) => ({ names: names.split(', '), why }));
    const explained = new Set(rows.flatMap(({ names }) => names));
    assert.deepEqual([...used].filter((name) => !explained.has(name)).sort(), []);
    assert.deepEqual([...explained].filter((name) => !used.has(name)).sort(), []);
    assert.deepEqual(
      rows.filter(({ why }) => why.length < 10),
      [],
    );
  });

  it('above each exported function of the foundation say what it does', () => {
    const files = listed('packages/contracts/*.ts', 'packages/host/*.ts', 'packages/chassis/*.ts');
    let functions = 0;
    const bare = files
      .filter((path) => !/\/(gen|testing)\//.test(path) && !path.endsWith('.test.ts'))
      .flatMap((path) => {
        const lines = textOf(path).split('\n');
        return lines.flatMap((line, index) => {
          if (!/^export (async )?function /.test(line)) return [];
          functions += 1;
          return lines[index - 1]?.trim().endsWith('*/') ? [] : [`${path}: ${line}`];
        });
      });
    assert.ok(functions > 100, `saw only ${functions} functions`);
    assert.deepEqual(bare, []);
  });
});

describe('the workspace', () => {
  it('is strict TypeScript in ES modules, each package of it', () => {
    const config = textOf('tsconfig.json');
    for (const option of [
      'strict',
      'exactOptionalPropertyTypes',
      'noUncheckedIndexedAccess',
      'verbatimModuleSyntax',
      'erasableSyntaxOnly',
    ]) {
      assert.match(config, new RegExp(`"${option}": true`));
    }
    const all = [...manifests()].filter(([path]) => !path.startsWith('scripts/'));
    assert.ok(all.length >= 14, `saw only ${all.length} packages`);
    assert.deepEqual(
      all.filter(([, manifest]) => manifest.type !== 'module').map(([path]) => path),
      [],
    );
  });

  it('is set up from the Debian packages that are named, and from npm by the lockfile without install scripts', () => {
    const setup = textOf('scripts/setup.mjs');
    const list =
      /^(?:export )?const [A-Z_]+ = \[\n((?: {2}'[a-z0-9-]+',\n)+)\];/m.exec(setup)?.[1] ?? '';
    const packages = [...list.matchAll(/'([a-z0-9-]+)'/g)].map(([, name]) => name ?? '');
    assert.ok(packages.length >= 12, `saw only ${packages.length} packages`);
    const named = textOf('docs/dependencies.md').replace(/^\|.*$/gm, '');
    assert.deepEqual(
      packages.filter((name) => !new RegExp(`\\b${name.replace(/-static$/, '')}`).test(named)),
      [],
    );
    assert.ok(setup.includes("'--frozen-lockfile'"));
    assert.equal(setup.split("'--ignore-scripts'").length, 3, 'of npm ci and of pnpm install');
    assert.match(textOf('pnpm-workspace.yaml'), /^ignoreScripts: true$/m);
  });

  it('has no test that reads outside of it', () => {
    const tests = listed('tests/*.ts', '*.test.ts');
    let paths = 0;
    const outside = tests.flatMap((path) =>
      [...textOf(path).matchAll(/(?:from|import|URL)\s*\(?\s*['"`](\.\.?\/[^'"`]*)/g)].flatMap(
        ([, name = '']) => {
          paths += 1;
          return normalize(join(dirname(path), name)).startsWith('..') ? [`${path}: ${name}`] : [];
        },
      ),
    );
    assert.ok(paths > 150, `saw only ${paths} paths`);
    assert.deepEqual(outside, []);
  });

  it('has no file of end-to-end or fault tests that does not look for what it left behind', () => {
    const looks =
      /assertNothingLeaked|stackSuite\(|kubeletSuite\(|startFaultNode\(|startSlowNode\(/;
    const files = listed('tests/e2e/*.test.ts', 'tests/faults/*.test.ts');
    assert.ok(files.length >= 30, `saw only ${files.length} files`);
    const starts = /startStack\(|startForeground\(|'up'|\bspawn\(/;
    const careless = files.filter((path) => !looks.test(textOf(path)) && starts.test(textOf(path)));
    // Each of its stacks is refused before anything is started.
    assert.deepEqual(careless, ['tests/e2e/configuration.test.ts']);
  });

  it('has a check that holds types, lint, generated files, and the unit tests with the walls', () => {
    const check = textOf('scripts/check.mjs');
    for (const step of ['types', 'lint and format', 'generated files are up to date', 'unit tests'])
      assert.ok(check.includes(`'${step}'`), step);
    assert.match(textOf('scripts/mocha.mjs'), /unit: \[[^\]]*'tests\/tidy\/\*\*\/\*\.test\.ts'/);
    assert.match(textOf('scripts/test.mjs'), /check\(\)[\s\S]*'e2e', 'faults'/);
  });
});
