// The Debian package of another version, for tests of upgrades and downgrades: the one of the last git
// tag, built from its own tree by its own scripts, or where there is no tag yet, one of this tree that
// writes records of a later format, as a next version would.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildPackage } from './package.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NEXT_VERSION = '99.0.0';

/** Puts it alone into `directory`; resolves to a phrase that says what it is. */
export async function buildOtherPackage(directory) {
  rmSync(directory, { recursive: true, force: true });
  const tag = lastTag();
  if (tag === undefined) {
    await buildPackage(directory, { version: NEXT_VERSION, recordFormatRaise: 1 });
    return 'this tree with records of a later format (there is no tag yet)';
  }
  const tree = treeOf(tag);
  const built = join(tree, 'dist-package');
  if (!existsSync(built) || packagesIn(built).length === 0) {
    for (const script of ['setup', 'package']) runScript(tree, script);
  }
  mkdirSync(directory, { recursive: true });
  for (const name of packagesIn(built)) {
    execFileSync('cp', [join(built, name), join(directory, name)]);
  }
  return `the tag ${tag}`;
}

/** The nearest tag of an earlier commit; undefined without one, and without a repository. */
function lastTag() {
  const { status, stdout } = spawnSync('git', ['describe', '--tags', '--abbrev=0', 'HEAD^'], {
    cwd: root,
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}

/** The files of a tag, kept: its dependencies are installed only once. */
function treeOf(tag) {
  const commit = git('rev-parse', '--short=12', `${tag}^{commit}`).trim();
  const place = join(root, '.setup', 'vm', 'tags');
  const tree = join(place, commit);
  if (existsSync(tree)) return tree;
  rmSync(place, { recursive: true, force: true });
  const making = `${tree}.making`;
  mkdirSync(making, { recursive: true });
  const archive = execFileSync('git', ['archive', commit], { cwd: root, maxBuffer: 2 ** 30 });
  execFileSync('tar', ['-x', '-C', making], { input: archive });
  renameSync(making, tree);
  return tree;
}

function runScript(tree, name) {
  const { status } = spawnSync(process.execPath, [join(tree, 'scripts', `${name}.mjs`)], {
    cwd: tree,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) throw new Error(`scripts/${name}.mjs of ${tree} failed`);
}

function packagesIn(directory) {
  return readdirSync(directory).filter((name) => name.endsWith('.deb'));
}

function git(...args) {
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' });
}
