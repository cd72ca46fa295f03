// `npm run e2e:vm [PHASE...]`: the end-to-end tests that need systemd, cgroup v2, AppArmor, criu or a
// reboot, in a virtual machine made from Debian packages; tests/vm/phases.ts lists the phases.
import { spawnSync } from 'node:child_process';
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

await setupOrExit();
const missing = Object.entries(TOOLS)
  .filter(([program]) => find(program) === '')
  .map(([, name]) => name);
if (missing.length > 0) {
  console.log(`· Installing ${missing.join(', ')}`);
  const install = ['install', '-y', '-qq', '--no-install-recommends', ...missing];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const { status } = spawnSync('apt-get', install, { stdio: ['ignore', 'ignore', 'inherit'], env });
  if (status !== 0) {
    console.error('The programs of the virtual machine could not be installed.');
    process.exit(1);
  }
}
console.log('· Building the Debian package, and another version of it for upgrades');
const packages = join(root, 'dist-package');
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
