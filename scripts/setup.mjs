// Everything a fresh Debian machine needs to run and test this project: Debian packages, the pinned
// package manager and Node, the dependencies of the lockfile, and the build. A second run changes
// nothing and uses no network.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const scratch = join(root, '.setup');
/** Of a failed step: characters of its output, from the end. */
const OUTPUT_KEPT = 64 * 1024;

/** What the runtime drives, then what only the tour and the tests use. */
const DEBIAN_PACKAGES = [
  'runc',
  'crun',
  'runsc',
  'conmon',
  'containernetworking-plugins',
  'iptables',
  'iproute2',
  'nats-server',
  'redis-server',
  'catatonit',
  'ca-certificates',
  'busybox-static',
  'docker-registry',
  'prometheus',
];
/** Packages whose service Debian would start, and enable for the next boot. */
const SERVICE_UNITS = ['nats-server', 'redis-server', 'docker-registry', 'prometheus'];
const POLICY = '/usr/sbin/policy-rc.d';
/** The machine's own one, set aside while ours is in its place. */
const POLICY_SAVED = `${POLICY}.before-cribus`;
const POLICY_MARK = '# Written by the set-up of cribus, for as long as it runs.';

/** Raised for what a person must mend; printed as one sentence. */
class SetupError extends Error {}

/** Raised when a signal ended the set-up. */
class Interrupted extends Error {}

/** Sets the machine and the tree up; resolves to phrases that say what was installed. */
export async function setup() {
  refuseWrongMachine();
  mkdirSync(scratch, { recursive: true });
  // A set-up that was killed may have left it.
  restorePolicy();
  const done = [];
  await untilSignal(async (signal) => {
    await installDebianPackages(done, signal);
    await installDependencies(done, signal);
  });
  await buildIfChanged(done);
  return done;
}

/** Builds, unless no source has been touched since the last time. */
async function buildIfChanged(done) {
  const stamp = join(scratch, 'sources.sha256');
  const wanted = sourcesDigest(root);
  const current = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  if (current === wanted && existsSync(join(root, 'dist', 'cribus.mjs'))) return;
  const { build } = await import('./build.mjs');
  if ((await build()) > 0) done.push('built dist/');
  writeFileSync(stamp, wanted);
}

/** Names, sizes and times of everything that the build reads. */
function sourcesDigest(root) {
  const hash = createHash('sha256');
  const visit = (directory) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.name === 'node_modules') continue;
      const path = join(directory, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) {
        const { size, mtimeMs } = statSync(path);
        hash.update(`${path} ${size} ${mtimeMs}\n`);
      }
    }
  };
  for (const name of ['packages', 'services', 'scripts']) visit(join(root, name));
  return hash.update(readFileSync(join(root, 'package.json'))).digest('hex');
}

/** Runs `work` with a signal that aborts at Ctrl-C, SIGTERM or SIGHUP. */
async function untilSignal(work) {
  const ending = new AbortController();
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  const end = () => ending.abort();
  for (const name of names) process.on(name, end);
  try {
    await work(ending.signal);
  } finally {
    for (const name of names) process.off(name, end);
  }
}

function refuseWrongMachine() {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const family = [...release.matchAll(/^ID(?:_LIKE)?=(.*)$/gm)].map((match) => match[1]).join(' ');
  if (!/debian|ubuntu/.test(family)) {
    throw new SetupError(
      'Set-up needs a Debian-like system, since it installs Debian packages; nothing was changed.',
    );
  }
  if (process.getuid?.() !== 0) {
    throw new SetupError(
      'Set-up needs root, to install Debian packages; nothing was changed. Try it with sudo.',
    );
  }
}

async function installDebianPackages(done, signal) {
  const installed = installedPackages();
  const missing = DEBIAN_PACKAGES.filter((name) => !installed.has(name));
  if (missing.length === 0) return;
  progress(`Installing ${missing.length} Debian packages, which may take some minutes`);
  await withoutServiceStarts(async () => {
    const apt = ['-qq', '-o', 'DPkg::Lock::Timeout=300'];
    await command('apt-get', [...apt, 'update'], 'apt-get update', signal);
    const install = [...apt, 'install', '-y', '--no-install-recommends', ...missing];
    await command('apt-get', install, 'apt-get install', signal);
  });
  if (existsSync('/run/systemd/system')) {
    for (const unit of SERVICE_UNITS.filter((name) => missing.includes(name))) {
      spawnSync('systemctl', ['disable', '--now', unit], { stdio: 'ignore' });
    }
  }
  done.push(`Debian packages ${missing.join(', ')}`);
}

/** Those of our packages that are there; dpkg-query(1) also prints what it knows beside what it misses. */
function installedPackages() {
  const format = '${Package} ${Status}\n';
  const query = spawnSync('dpkg-query', ['-W', `-f=${format}`, ...DEBIAN_PACKAGES], {
    encoding: 'utf8',
  });
  const rows = query.stdout.split('\n').filter((row) => row.endsWith(' install ok installed'));
  return new Set(rows.map((row) => row.split(' ')[0]));
}

/** invoke-rc.d(8) asks policy-rc.d; 101 forbids every action. An existing one is put back after. */
async function withoutServiceStarts(work) {
  try {
    if (existsSync(POLICY)) renameSync(POLICY, POLICY_SAVED);
    writeFileSync(POLICY, `#!/bin/sh\n${POLICY_MARK}\nexit 101\n`);
    chmodSync(POLICY, 0o755);
    await work();
  } finally {
    restorePolicy();
  }
}

function restorePolicy() {
  if (existsSync(POLICY_SAVED)) renameSync(POLICY_SAVED, POLICY);
  else if (existsSync(POLICY) && readFileSync(POLICY, 'utf8').includes(POLICY_MARK)) rmSync(POLICY);
}

async function installDependencies(done, signal) {
  const stamp = join(scratch, 'dependencies.sha256');
  const wanted = dependenciesDigest(root);
  const current = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  if (current === wanted && existsSync(join(root, 'node_modules', 'esbuild'))) return;
  progress('Installing the npm dependencies of the lockfile (install scripts off)');
  const bootstrap = join(root, 'scripts', 'bootstrap');
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  await command('npm', ['ci', ...quiet, '--prefix', bootstrap], 'npm ci', signal);
  await command(
    process.execPath,
    [
      join(bootstrap, 'node_modules/pnpm/bin/pnpm.cjs'),
      'install',
      '--frozen-lockfile',
      '--ignore-scripts',
      '--reporter=silent',
    ],
    'pnpm install',
    signal,
  );
  // npm puts this shell script in front of every `node`, where it would take the signals meant for ours.
  rmSync(join(root, 'node_modules', '.bin', 'node'), { force: true });
  writeFileSync(`${stamp}.new`, wanted);
  renameSync(`${stamp}.new`, stamp);
  done.push(`npm dependencies, with Node ${pinnedVersion()} for the services`);
}

/** Differs whenever `pnpm install` would change something in a tree, or the tree was moved. */
export function dependenciesDigest(tree) {
  const files = [
    'package.json',
    'pnpm-lock.yaml',
    'pnpm-workspace.yaml',
    'scripts/bootstrap/package-lock.json',
  ];
  for (const folder of ['packages', 'services', 'tests']) {
    for (const name of readdirSync(join(tree, folder)))
      files.push(`${folder}/${name}/package.json`);
  }
  const hash = createHash('sha256').update(tree);
  for (const file of files.filter((name) => existsSync(join(tree, name)))) {
    hash.update(file).update(readFileSync(join(tree, file)));
  }
  return hash.digest('hex');
}

function pinnedVersion() {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return manifest.optionalDependencies[`node-linux-${process.arch}`];
}

/** Runs a step quietly; its output is shown only when it fails. */
async function command(name, args, step, signal) {
  if (signal.aborted) throw new Interrupted();
  const child = spawn(name, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', CI: 'true' },
  });
  // apt-get and npm end in order at SIGINT; a terminal's Ctrl-C has reached them already.
  const interrupt = () => child.kill('SIGINT');
  signal.addEventListener('abort', interrupt);
  let output = '';
  const take = (chunk) => {
    output = `${output}${chunk}`.slice(-OUTPUT_KEPT);
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const code = await new Promise((resolve) => {
    child.on('error', (error) => {
      take(error.message);
      resolve(1);
    });
    child.on('close', resolve);
  });
  signal.removeEventListener('abort', interrupt);
  if (signal.aborted) throw new Interrupted();
  if (code === 0) return;
  const lines = output.trim().split('\n').slice(-12).join('\n');
  throw new SetupError(`${step} failed:\n${lines || `exit code ${code}`}`);
}

function progress(sentence) {
  console.log(`· ${sentence}`);
}

/** Breaks a sentence at blanks into lines of at most 100 columns. */
function wrapped(sentence) {
  const lines = [''];
  for (const word of sentence.split(' ')) {
    const line = lines.at(-1);
    if (line !== '' && line.length + 1 + word.length > 100) lines.push(`  ${word}`);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines.join('\n');
}

/** Runs set-up for a command of ours: prints what it did, or the sentence and exit code 1. */
export async function setupOrExit() {
  try {
    const done = await setup();
    console.log(
      done.length === 0
        ? '· Set-up: everything is there already.'
        : wrapped(`· Installed: ${done.join('; ')}.`),
    );
  } catch (error) {
    if (error instanceof Interrupted) {
      console.error('Set-up was interrupted; run it again to finish it.');
      process.exit(130);
    }
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await setupOrExit();
