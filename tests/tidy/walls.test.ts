// The walls between packages, and the few rules of the house that a reader can't be asked to keep by
// eye. Each check says how much it saw, so that none is green because it looked at nothing.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

interface SourceFile {
  readonly path: string;
  readonly lines: readonly string[];
  readonly text: string;
  readonly imports: readonly string[];
}

function sourceFiles(): SourceFile[] {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.ts'], {
    cwd: root,
    encoding: 'utf8',
  });
  return listed
    .split('\n')
    .filter((path) => path !== '' && !path.includes('/gen/'))
    .map((path) => {
      const text = readFileSync(join(root, path), 'utf8');
      const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(
        (match) => match[1] ?? '',
      );
      return { path, text, lines: text.split('\n'), imports };
    });
}

const files = sourceFiles();
const shipped = files.filter(
  (file) =>
    /^(packages|services)\//.test(file.path) && !/(\.test\.ts$|\/testing\/)/.test(file.path),
);

/** What each package may import of ours; nothing else, and no service imports a service. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  contracts: [],
  host: [],
  archive: ['contracts', 'host'],
  oci: ['contracts'],
  chassis: ['contracts', 'host'],
  'runtime-worker': ['contracts', 'host', 'archive', 'oci', 'chassis'],
  cli: ['contracts', 'host', 'chassis'],
  'cri-gateway': ['contracts', 'host', 'chassis'],
  'image-service': ['contracts', 'host', 'archive', 'chassis'],
  'sandbox-manager': ['contracts', 'host', 'chassis'],
  'runtime-runc': ['contracts', 'host', 'oci', 'chassis', 'runtime-worker'],
  'runtime-gvisor': ['contracts', 'host', 'oci', 'chassis', 'runtime-worker'],
};

/** What only one place may know. */
const ONLY_IN: readonly {
  readonly module: RegExp;
  readonly where: RegExp;
  readonly why: string;
}[] = [
  {
    module: /^@grpc\/grpc-js$/,
    where: /^(services\/cri-gateway|packages\/cli|packages\/contracts)\//,
    why: 'only the gateway, and the command as its client, know gRPC',
  },
  { module: /^koffi$/, where: /^packages\/host\//, why: 'only host touches Linux' },
  {
    module: /^node:child_process$/,
    where: /^packages\/host\//,
    why: 'programs are started by host/spawn.ts',
  },
  {
    module: /^(@nats-io\/transport-node|ioredis|fastify|pino|prom-client|@opentelemetry\/.*)$/,
    where: /^packages\/(chassis|cli)\//,
    why: 'the chassis wraps it',
  },
];

/** Longer files, each for a reason of its own. */
const LONG_FILES: Readonly<Record<string, number>> = {};

function violations(
  of: readonly SourceFile[],
  find: (file: SourceFile) => readonly string[],
): string[] {
  return of.flatMap((file) => find(file).map((what) => `${file.path}: ${what}`));
}

describe('the walls between packages', () => {
  it('lets each package import only what is below it', () => {
    let imports = 0;
    const bad = violations(shipped, (file) => {
      const own = file.path.split('/')[1] ?? '';
      return file.imports.flatMap((name) => {
        const target = /^@cribus\/([^/]+)\//.exec(name)?.[1];
        if (target === undefined || target === own) return [];
        imports += 1;
        return (MAY_IMPORT[own] ?? []).includes(target) ? [] : [`may not import ${name}`];
      });
    });
    assert.deepEqual(bad, []);
    assert.ok(imports > 100, `saw only ${imports} imports between packages`);
  });

  it('never climbs out of a package by a relative path', () => {
    const bad = violations(shipped, (file) => {
      const packageRoot = file.path.split('/').slice(0, 2).join('/');
      return file.imports
        .filter(
          (name) => name.startsWith('.') && !join(dirname(file.path), name).startsWith(packageRoot),
        )
        .map((name) => `reaches out by ${name}`);
    });
    assert.deepEqual(bad, []);
  });

  it('keeps what one place knows in that place', () => {
    const bad = violations(shipped, (file) =>
      ONLY_IN.filter(
        (rule) =>
          !rule.where.test(file.path) && file.imports.some((name) => rule.module.test(name)),
      ).map((rule) => rule.why),
    );
    assert.deepEqual(bad, []);
    assert.ok(shipped.length > 60, `saw only ${shipped.length} files`);
  });
});

describe('the rules of the house', () => {
  it('reads time and randomness only through host', () => {
    // The method of the same name of a socket or a response is its own idle limit.
    const banned =
      /(?<!\bresponse\.)\b(Date\.now|new Date\(\)|Math\.random|setTimeout|setInterval)\b/;
    const bad = violations(
      shipped.filter((file) => !file.path.startsWith('packages/host/')),
      (file) =>
        file.lines
          .filter((line) => banned.test(line) && !/^\s*(\/\/|\*)/.test(line))
          .map((line) => line.trim()),
    );
    assert.deepEqual(bad, []);
  });

  it('joins signals by what lets go of them again', () => {
    let joins = 0;
    const byNode = shipped.filter((file) => {
      if (/\b(joinSignals|withJoinedSignal)\(/.test(file.text)) joins += 1;
      return file.lines.some((line) => /\bAbortSignal\.any\(/.test(line));
    });
    assert.deepEqual(
      byNode.map(({ path }) => path),
      [],
    );
    assert.ok(joins > 20, `saw only ${joins} files that join signals`);
  });

  it('has no grab-bag names, no default exports, no leftovers', () => {
    const bad = violations(files, (file) => [
      ...file.path
        .split('/')
        .filter((part) => /^(utils?|common|helpers?|lib|misc)(\.ts)?$/.test(part)),
      ...(basename(file.path) === 'index.ts' ? ['a barrel'] : []),
      ...file.lines.filter((line) => /^export default/.test(line)),
      ...(file.path.startsWith('tests/tidy/')
        ? []
        : file.lines.filter((line) => /\b(TODO|FIXME|XXX)\b/.test(line))),
    ]);
    assert.deepEqual(bad, []);
  });

  it('keeps files within 400 lines', () => {
    const bad = violations(shipped, (file) => {
      const most = LONG_FILES[file.path] ?? 400;
      return file.lines.length > most ? [`${file.lines.length} lines`] : [];
    });
    assert.deepEqual(bad, []);
  });

  it('opens every shipped file with what it is for', () => {
    const bad = violations(shipped, (file) =>
      /^(\/\/|\/\*\*|#!)/.test(file.lines[0] ?? '') ? [] : ['no opening comment'],
    );
    assert.deepEqual(bad, []);
  });

  it('runs no test exclusively and skips none', () => {
    const bad = violations(
      files.filter(
        (file) => file.path.endsWith('.test.ts') && !file.path.startsWith('tests/tidy/'),
      ),
      (file) =>
        file.lines.filter((line) => /\b(it|describe)\.(skip|only)\b|this\.skip\(/.test(line)),
    );
    assert.deepEqual(bad, []);
  });
});
