// The machine that the tests run in: a Debian with systemd, cgroup v2 and AppArmor, made from Debian
// packages alone, kept as a disk image until its recipe changes.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** The runtime's own parts, and what a node of a cluster has. */
const PACKAGES = [
  'systemd',
  'systemd-sysv',
  'dbus',
  'udev',
  'kmod',
  'procps',
  'iproute2',
  'iptables',
  'apparmor',
  'criu',
  'runc',
  'crun',
  'runsc',
  'conmon',
  'containernetworking-plugins',
  'catatonit',
  'nats-server',
  'redis-server',
  'docker-registry',
  'busybox-static',
  'ca-certificates',
  // critest loads AppArmor profiles by it.
  'sudo',
  'initramfs-tools',
  `linux-image-cloud-${process.arch === 'x64' ? 'amd64' : 'arm64'}`,
];
const SUITE = 'bookworm';
const DISK_SIZE = '6G';

/** Debian starts these at their installation; the tests bring servers of their own. */
const UNITS_OFF = ['nats-server', 'redis-server', 'docker-registry'];

/** Runs what the tree brings, from a disk that is only read. */
const TEST_UNIT = `[Unit]
Description=tests of cribus
After=multi-user.target

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh -c 'mkdir -p /srv/cribus && mount -o ro /dev/vdb /srv/cribus && exec sh /srv/cribus/tests/vm/inside/run.sh'

[Install]
WantedBy=multi-user.target
`;

export interface BaseImage {
  /** A raw ext4 disk; never written to. */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

/** Builds it below `directory`, or finds it there. Takes some minutes the first time. */
export async function provideBaseImage(
  directory: string,
  say: (line: string) => void,
): Promise<BaseImage> {
  const recipe = JSON.stringify([PACKAGES, SUITE, DISK_SIZE, UNITS_OFF, TEST_UNIT]);
  const digest = createHash('sha256').update(recipe).digest('hex').slice(0, 12);
  const place = join(directory, digest);
  const image = {
    disk: join(place, 'disk.img'),
    kernel: join(place, 'vmlinuz'),
    initrd: join(place, 'initrd.img'),
  };
  if (existsSync(image.disk)) return image;
  // An older recipe's is of no use any more.
  await rm(directory, { recursive: true, force: true });
  const making = `${place}.making`;
  const root = join(making, 'root');
  await mkdir(making, { recursive: true });
  say('Making the machine from Debian packages, which takes some minutes the first time');
  await execute('debootstrap', [
    '--variant=minbase',
    `--include=${PACKAGES.join(',')}`,
    SUITE,
    root,
  ]);
  configure(root);
  const boot = readdirSync(join(root, 'boot'));
  const find = (prefix: string) =>
    join(root, 'boot', boot.find((name) => name.startsWith(prefix)) ?? prefix);
  await execute('cp', [find('vmlinuz-'), join(making, 'vmlinuz')]);
  await execute('cp', [find('initrd.img-'), join(making, 'initrd.img')]);
  await execute('mkfs.ext4', ['-q', '-d', root, join(making, 'disk.img'), DISK_SIZE]);
  await rm(root, { recursive: true, force: true });
  await rename(making, place);
  return image;
}

function configure(root: string): void {
  const units = join(root, 'etc', 'systemd', 'system');
  writeFileSync(join(units, 'cribus-tests.service'), TEST_UNIT);
  const wants = join(units, 'multi-user.target.wants');
  mkdirSync(wants, { recursive: true });
  writeFileSync(join(root, 'etc', 'hostname'), 'node\n');
  writeFileSync(join(root, 'etc', 'hosts'), '127.0.0.1 localhost node\n::1 localhost\n');
  writeFileSync(join(root, 'etc', 'fstab'), '/dev/vda / ext4 rw 0 1\n');
  for (const unit of UNITS_OFF) rmSync(join(wants, `${unit}.service`), { force: true });
  symlinkSync('../cribus-tests.service', join(wants, 'cribus-tests.service'));
  // Modules that the first pod would load while its deadline runs.
  const modules = ['overlay', 'br_netfilter', 'bridge', 'veth', 'nf_tables'];
  writeFileSync(join(root, 'etc', 'modules-load.d', 'cribus.conf'), `${modules.join('\n')}\n`);
}
