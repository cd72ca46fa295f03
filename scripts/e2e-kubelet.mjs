// `npm run e2e:kubelet [MOCHA ARGUMENT...]`: runs the kubelet of the PATH against stacks of their own,
// in namespaces of their own, so that nothing that it changes or leaves is the machine's.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { setupOrExit } from './setup.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const OLDEST = [1, 34];
const ARCHITECTURE = process.arch === 'x64' ? 'amd64' : process.arch;
const HOW_TO_GET_IT = `Take one of 1.34 or later for ${ARCHITECTURE} (https://kubernetes.io/releases/download/), or build
it with Go from a checkout of Kubernetes (make WHAT=cmd/kubelet), and put it on the PATH.`;
/** Pod, monitor and engine cgroups of a run are all below it. */
const CGROUP = `cribus-kubelet-${process.pid}`;

function refuse(sentence) {
  console.error(sentence);
  process.exit(1);
}

/** As 1.36.2. */
function kubeletVersion() {
  const asked = spawnSync('kubelet', ['--version'], { encoding: 'utf8' });
  if (asked.error?.code === 'ENOENT') refuse(`There is no kubelet on the PATH. ${HOW_TO_GET_IT}`);
  const [, version, major, minor] = /v((\d+)\.(\d+)\S*)/.exec(asked.stdout ?? '') ?? [];
  if (version === undefined) refuse(`The kubelet on the PATH tells no version. ${HOW_TO_GET_IT}`);
  const old =
    Number(major) < OLDEST[0] || (Number(major) === OLDEST[0] && Number(minor) < OLDEST[1]);
  if (old)
    refuse(`The kubelet on the PATH is of version ${version}, which is too old. ${HOW_TO_GET_IT}`);
  return version;
}

// Directories that the kubelet has fixed names for are mounted over. The bridge gives the node its
// address. Mounts are shared, as systemd has them.
const PREPARE = `
set -e
ip link set lo up
ip link add node0 type bridge
ip address add 192.0.2.10/24 dev node0
ip link set node0 up
mount --bind "$0/run" /run
mount --bind "$0/var-log" /var/log
mount --bind "$0/var-lib" /var/lib
mount --make-rshared /
exec catatonit -- "$@"`;

const version = kubeletVersion();
if (process.geteuid?.() !== 0) refuse('It needs root: a kubelet does. Try it with sudo.');
await setupOrExit();
console.log(`· The kubelet of the PATH is of version ${version}`);
// Short, as unix sockets are below it.
const scratch = mkdtempSync(join(tmpdir(), 'cribus-k-'));
for (const name of ['run', 'var-log', 'var-lib', 'tmp']) mkdirSync(join(scratch, name));
const words = process.argv.slice(2).filter((word) => word !== '--');
const tests = [process.execPath, join(root, 'scripts', 'mocha.mjs'), 'kubelet', ...words];
const namespaces = ['--mount', '--pid', '--net', '--fork', '--mount-proc', '--kill-child'];
const child = spawn('unshare', [...namespaces, 'sh', '-c', PREPARE, scratch, ...tests], {
  stdio: ['ignore', 'inherit', 'inherit'],
  // Away from the terminal's Ctrl-C: it is ended as a whole, with its pods.
  detached: true,
  env: { ...process.env, TMPDIR: join(scratch, 'tmp'), CRIBUS_KUBELET_CGROUP: `/${CGROUP}` },
});
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => child.kill('SIGKILL'));
child.on('exit', async (code) => {
  await removeCgroups();
  rmSync(scratch, { recursive: true, force: true });
  process.exitCode = code ?? 130;
});

/** All processes are killed by now, but some may not be gone yet; deepest first. */
async function removeCgroups() {
  const top = '/sys/fs/cgroup';
  const places = [top, ...readdirSync(top).map((name) => join(top, name))];
  for (let tries = 0; tries < 100; tries += 1) {
    try {
      for (const place of places) removeTree(join(place, CGROUP));
      return;
    } catch (error) {
      if (error.code !== 'EBUSY') throw error;
      await sleep(100);
    }
  }
  console.error(`The cgroup ${CGROUP} still has processes.`);
}

function removeTree(directory) {
  if (!existsSync(directory)) return;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(directory, entry.name));
  }
  rmdirSync(directory);
}
