// `npm run e2e:vm [TEST...]`: the end-to-end tests that need systemd, cgroup v2, AppArmor, criu or a
// reboot, in a virtual machine made from Debian packages.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
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

await setupOrExit();
const missing = Object.entries(TOOLS)
  .filter(([program]) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0)
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
console.log('· Building the Debian package in two versions, for an upgrade');
buildPackage(join(root, 'dist-package'));
buildPackage(join(root, 'dist-package'), '99.0.0');
const result = spawnSync(
  pinnedNode(root),
  [join(root, 'tests', 'vm', 'run.ts'), root, ...process.argv.slice(2)],
  {
    stdio: 'inherit',
    env: { ...process.env, NODE_OPTIONS: '--disable-warning=ExperimentalWarning' },
  },
);
process.exitCode = result.status ?? 1;
