// Bundles each service, the command and every worker thread into one small file of dist/ each.
// Only files whose content changed are written, so a running stack is not disturbed for nothing.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Files of their own: loaded where traces are asked for, a CDI file is YAML, a stream is opened. */
const SPLIT_OFF = [
  'packages/chassis/src/tracing-sdk.ts',
  'packages/runtime-worker/src/yaml-parser.ts',
  'services/cri-gateway/src/streaming/serve-stream.ts',
];
const splitOff = {
  name: 'split-off',
  setup(bundler) {
    bundler.onResolve({ filter: /\/(tracing-sdk|yaml-parser|serve-stream)\.ts$/ }, (args) => {
      const path = `./${basename(args.path, '.ts')}.mjs`;
      return args.kind === 'dynamic-import' ? { path, external: true } : undefined;
    });
  },
};

/**
 * Builds dist/, or what stands for it; resolves to the number of files written. Records of a build with
 * a raise are of a later format, as those of a next version would be.
 */
export async function build({ dist = join(root, 'dist'), recordFormatRaise = 0 } = {}) {
  const { build: bundle } = await import('esbuild');
  const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
  const result = await bundle({
    absWorkingDir: root,
    entryPoints: entryPoints(),
    outdir: dist,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: false,
    write: false,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    minifySyntax: true,
    // V8 keeps a bundle's text in memory, in two bytes a character if a comment holds one that isn't
    // Latin; so no comments and no indentation. Names stay, for stack traces.
    minifyWhitespace: true,
    lineLimit: 120,
    legalComments: 'none',
    logLevel: 'warning',
    // A native module can't be bundled.
    external: ['koffi'],
    plugins: [splitOff],
    define: {
      'process.env.CRIBUS_VERSION': JSON.stringify(version),
      'process.env.CRIBUS_RECORD_FORMAT_RAISE': String(recordFormatRaise),
    },
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  });
  mkdirSync(dist, { recursive: true });
  const wanted = new Set();
  let written = 0;
  for (const file of result.outputFiles) {
    wanted.add(basename(file.path));
    if (existsSync(file.path) && readFileSync(file.path).equals(file.contents)) continue;
    writeFileSync(file.path, file.contents);
    written += 1;
  }
  for (const name of readdirSync(dist)) {
    if (!wanted.has(name)) rmSync(join(dist, name), { recursive: true });
  }
  return written;
}

/** Output name to source file. */
function entryPoints() {
  const entries = {};
  for (const service of readdirSync(join(root, 'services'))) {
    entries[service] = `services/${service}/src/main.ts`;
  }
  entries.cribus = 'packages/cli/src/main.ts';
  for (const folder of ['packages', 'services']) {
    for (const name of walk(join(root, folder))) {
      if (name.endsWith('.thread.ts')) entries[basename(name, '.ts')] = name;
    }
  }
  for (const file of SPLIT_OFF) {
    if (existsSync(join(root, file))) entries[basename(file, '.ts')] = file;
  }
  return Object.fromEntries(
    Object.entries(entries).filter(([, file]) => existsSync(join(root, file)) || existsSync(file)),
  );
}

function walk(directory) {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name === 'node_modules') return [];
    const path = join(directory, entry.name);
    return entry.isDirectory() ? walk(path) : [path];
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const written = await build();
  console.log(`dist/ is up to date (${written} files written).`);
}
