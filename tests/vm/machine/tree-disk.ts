// The project's tree as a disk: what the tests need to run, without history and without the tools that
// only build and check.

import { execFile } from 'node:child_process';
import { copyFile, mkdir, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { build } from 'esbuild';

const execute = promisify(execFile);
const WANTED = [
  ...['bin', 'deploy', 'dist', 'dist-package', 'packages', 'proto', 'scripts', 'services', 'tests'],
  ...['package.json', 'pnpm-workspace.yaml', 'tsconfig.json'],
];
/** Large, and of no use in there. */
const TOOLS =
  /^(@biomejs|@bufbuild\+buf|@esbuild|esbuild|@grafana|@typescript|typescript|ts-proto)/;
const SIZE = '3G';

/**
 * Makes the disk at `file`. The tree is linked, not copied, so both must be on one file system. The
 * tests are bundled: in there, reading hundreds of sources would take minutes. A critest of the host's
 * is put beside them.
 */
export async function makeTreeDisk(
  tree: string,
  { file, critest }: { readonly file: string; readonly critest: string },
): Promise<void> {
  const stage = `${file}.tree`;
  await rm(stage, { recursive: true, force: true });
  await mkdir(join(stage, 'node_modules', '.pnpm'), { recursive: true });
  try {
    for (const name of WANTED) await link(join(tree, name), stage);
    const modules = join(tree, 'node_modules');
    for (const name of await readdir(modules)) {
      if (name !== '.pnpm') await link(join(modules, name), join(stage, 'node_modules'));
    }
    const store = join(modules, '.pnpm');
    for (const name of await readdir(store)) {
      if (!TOOLS.test(name)) await link(join(store, name), join(stage, 'node_modules', '.pnpm'));
    }
    const inside = join(stage, 'tests', 'vm', 'inside');
    await bundleTests(tree, inside);
    if (critest !== '') await copyFile(critest, join(inside, 'critest'));
    await mkdir(dirname(file), { recursive: true });
    await rm(file, { force: true });
    await execute('mkfs.ext4', ['-q', '-d', stage, file, SIZE]);
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

async function bundleTests(tree: string, into: string): Promise<void> {
  const from = join(tree, 'tests', 'vm', 'inside');
  const tests = (await readdir(from)).filter((name) => name.endsWith('.test.ts'));
  await build({
    entryPoints: tests.map((name) => join(from, name)),
    outdir: into,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    external: ['koffi', 'mocha'],
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  });
}

async function link(path: string, into: string): Promise<void> {
  await execute('cp', ['--archive', '--link', path, into]);
}
