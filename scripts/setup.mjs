// Everything a fresh Debian machine needs to run and test this project: Debian packages, the pinned
// package manager and Node, the dependencies of the lockfile, and the build. A second run changes
// nothing and uses no network.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const scratch = join(root, '.setup');

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
const SAVED_POLICY = join(scratch, 'policy-rc.d.saved');
const NO_POLICY = join(scratch, 'policy-rc.d.absent');

/** Raised for what a person must mend; printed as one sentence. */
class SetupError extends Error {}

/** Sets the machine and the tree up; resolves to sentences that say what was installed. */
export async function setup() {
  refuseWrongMachine();
  mkdirSync(scratch, { recursive: true });
  restorePolicy();
  const done = [];
  installDebianPackages(done);
  installDependencies(done);
  const { build } = await import('./build.mjs');
  if ((await build()) > 0) done.push('built dist/');
  return done;
}

function refuseWrongMachine() {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const family = [...release.matchAll(/^ID(?:_LIKE)?=(.*)$/gm)].map((match) => match[1]).join(' ');
  if (!/debian|ubuntu/.test(family)) {
    throw new SetupError(
      'Set-up needs a Debian-like system (it installs Debian packages with apt-get); nothing was changed.',
    );
  }
  if (process.getuid?.() !== 0) {
    throw new SetupError(
      'Set-up needs root, to install Debian packages; nothing was changed. Try it with sudo.',
    );
  }
}

function installDebianPackages(done) {
  const missing = DEBIAN_PACKAGES.filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  progress(`Installing ${missing.length} Debian packages: ${missing.join(' ')}`);
  withoutServiceStarts(() => {
    const apt = ['-qq', '-o', 'DPkg::Lock::Timeout=300'];
    command('apt-get', [...apt, 'update'], 'apt-get update');
    command(
      'apt-get',
      [...apt, 'install', '-y', '--no-install-recommends', ...missing],
      'apt-get install',
    );
  });
  if (existsSync('/run/systemd/system')) {
    for (const unit of SERVICE_UNITS.filter((name) => missing.includes(name))) {
      spawnSync('systemctl', ['disable', '--now', unit], { stdio: 'ignore' });
    }
  }
  done.push(`Debian packages ${missing.join(', ')}`);
}

function isInstalled(name) {
  const query = spawnSync('dpkg-query', ['-W', '-f=${Status}', name], { encoding: 'utf8' });
  return query.status === 0 && query.stdout === 'install ok installed';
}

/** invoke-rc.d(8) asks policy-rc.d; 101 forbids every action. An existing one is put back after. */
function withoutServiceStarts(work) {
  if (existsSync(POLICY)) writeFileSync(SAVED_POLICY, readFileSync(POLICY), { mode: 0o755 });
  else writeFileSync(NO_POLICY, '');
  const restoreAndEnd = () => {
    restorePolicy();
    process.exit(130);
  };
  process.once('SIGINT', restoreAndEnd).once('SIGTERM', restoreAndEnd);
  try {
    writeFileSync(POLICY, '#!/bin/sh\nexit 101\n');
    chmodSync(POLICY, 0o755);
    work();
  } finally {
    restorePolicy();
    process.off('SIGINT', restoreAndEnd).off('SIGTERM', restoreAndEnd);
  }
}

/** Also run first, for a set-up that was killed in between. */
function restorePolicy() {
  if (existsSync(SAVED_POLICY)) {
    writeFileSync(POLICY, readFileSync(SAVED_POLICY), { mode: 0o755 });
    rmSync(SAVED_POLICY);
  } else if (existsSync(NO_POLICY)) {
    rmSync(POLICY, { force: true });
    rmSync(NO_POLICY);
  }
}

function installDependencies(done) {
  const stamp = join(scratch, 'dependencies.sha256');
  const wanted = manifestsDigest();
  const current = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  if (current === wanted && existsSync(join(root, 'node_modules', 'esbuild'))) return;
  progress('Installing the npm dependencies of the lockfile (install scripts off)');
  const bootstrap = join(root, 'scripts', 'bootstrap');
  command(
    'npm',
    [
      'ci',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      '--prefix',
      bootstrap,
    ],
    'npm ci',
  );
  command(
    process.execPath,
    [
      join(bootstrap, 'node_modules/pnpm/bin/pnpm.cjs'),
      'install',
      '--frozen-lockfile',
      '--ignore-scripts',
      '--reporter=silent',
    ],
    'pnpm install',
  );
  writeFileSync(`${stamp}.new`, wanted);
  renameSync(`${stamp}.new`, stamp);
  done.push(`npm dependencies, with Node ${pinnedVersion()} for the services`);
}

function manifestsDigest() {
  const files = [
    'package.json',
    'pnpm-lock.yaml',
    'pnpm-workspace.yaml',
    'scripts/bootstrap/package-lock.json',
  ];
  for (const folder of ['packages', 'services', 'tests']) {
    for (const name of readdirSync(join(root, folder)))
      files.push(`${folder}/${name}/package.json`);
  }
  const hash = createHash('sha256').update(root);
  for (const file of files.filter((name) => existsSync(join(root, name)))) {
    hash.update(file).update(readFileSync(join(root, file)));
  }
  return hash.digest('hex');
}

function pinnedVersion() {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return manifest.optionalDependencies[`node-linux-${process.arch}`];
}

/** Runs a step quietly; its output is shown only when it fails. */
function command(name, args, step) {
  try {
    execFileSync(name, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 64 * 1024 * 1024,
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', CI: 'true' },
    });
  } catch (error) {
    const output = `${error.stdout ?? ''}${error.stderr ?? ''}`
      .trim()
      .split('\n')
      .slice(-12)
      .join('\n');
    throw new SetupError(`${step} failed:\n${output || error.message}`);
  }
}

function progress(sentence) {
  console.log(`· ${sentence.length > 96 ? `${sentence.slice(0, 93)}...` : sentence}`);
}

/** Runs set-up for a command of ours: prints what it did, or the sentence and exit code 1. */
export async function setupOrExit() {
  try {
    const done = await setup();
    console.log(
      done.length === 0
        ? '· Set-up: everything is there already.'
        : `· Installed: ${done.join('; ')}.`,
    );
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await setupOrExit();
