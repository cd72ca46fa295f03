// `npm run e2e:vm [PHASE...]`: the end-to-end tests that need systemd, cgroup v2, AppArmor, criu or a
// reboot, in a virtual machine made from Debian packages; tests/vm/phases.ts lists the phases.
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildOtherPackage } from './other-package.mjs';
import { buildPackage } from './package.mjs';
import { pinnedNode } from './pinned-node.mjs';
import { setupOrExit } from './setup.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
/** Program to the Debian package that has it. */
const TOOLS = {
  debootstrap: 'debootstrap',
  'mkfs.ext4': 'e2fsprogs',
  'qemu-img': 'qemu-utils',
  [process.arch === 'x64' ? 'qemu-system-x86_64' : 'qemu-system-aarch64']:
    process.arch === 'x64' ? 'qemu-system-x86' : 'qemu-system-arm',
};

function find(program) {
  const { stdout } = spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' });
  return stdout.trim();
}

function aptGet(...words) {
  const args = ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...words];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const { status } = spawnSync('apt-get', args, { stdio: ['ignore', 'ignore', 'inherit'], env });
  if (status === 0) return;
  console.error(`The programs of the virtual machine could not be installed: apt-get ${words[0]}.`);
  process.exit(1);
}

await setupOrExit();
const missing = Object.entries(TOOLS)
  .filter(([program]) => find(program) === '')
  .map(([, name]) => name);
if (missing.length > 0) {
  console.log(`· Installing ${missing.join(', ')}`);
  // The lists of a machine that has been set up before may be old, or gone.
  aptGet('update');
  aptGet('install', '-y', '--no-install-recommends', ...missing);
}
console.log('· Building the Debian package, and another version of it for upgrades');
const packages = join(root, 'dist-package');
// What an earlier run made is of another version, maybe.
rmSync(packages, { recursive: true, force: true });
await buildPackage(packages);
console.log(`  the other version is ${await buildOtherPackage(join(packages, 'other'))}`);
const words = process.argv.slice(2).filter((word) => word !== '--');
const result = spawnSync(
  pinnedNode(root),
  [join(root, 'tests', 'vm', 'run.ts'), root, find('critest'), ...words],
  {
    stdio: 'inherit',
    env: { ...process.env, NODE_OPTIONS: '--disable-warning=ExperimentalWarning' },
  },
);
process.exitCode = result.status ?? 1;
