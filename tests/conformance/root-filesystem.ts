// The root filesystem that critest's images share: Debian's static busybox, and what that one lacks.

import { execFileSync } from 'node:child_process';
import { readFileSync, realpathSync } from 'node:fs';
import type { ArchiveEntry } from '../e2e/harness/archive.ts';

const BUSYBOX = '/bin/busybox';
/** Dynamic programs of Debian's essential packages, put into the images with their libraries. */
export const SET_UID_SHELL = '/bin/dash';
const IPCS = '/usr/bin/ipcs';

/** Users of the busybox image, two of whom critest names: www-data, and uid 1000 by number. */
export const PASSWD = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`;
export const GROUP = `root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
nogroup:x:65534:
`;

/** Debian's busybox has none: the process ids whose name holds the word, one a line. */
const PGREP = `#!/bin/sh
for directory in /proc/[0-9]*; do
  name=
  read -r name 2>/dev/null <"$directory/comm"
  case $name in *"$1"*) echo "\${directory#/proc/}" && found=1 ;; esac
done
[ -n "$found" ]
`;

/** Lowest layer of all images but the pause ones. Raises an Error that names a missing program. */
export function baseLayer(): readonly ArchiveEntry[] {
  return [
    ...['bin', 'dev', 'etc', 'home', 'lib', 'lib64', 'usr', 'usr/bin', 'usr/sbin', 'var'].map(
      directory,
    ),
    ...['proc', 'sys', 'var/run', 'var/www'].map(directory),
    { ...directory('root'), mode: 0o700 },
    { ...directory('tmp'), mode: 0o1777 },
    program('bin/busybox', readProgram(BUSYBOX)),
    ...applets().map((name) => ({ name: `bin/${name}`, type: '1', linkName: 'bin/busybox' })),
    program('bin/sh', shellThatSeesFiles()),
    program('bin/ipcs', readProgram(IPCS)),
    program('bin/pgrep', Buffer.from(PGREP)),
    ...librariesOf([SET_UID_SHELL, IPCS]),
    { name: 'etc/passwd', data: PASSWD },
    { name: 'etc/group', data: GROUP },
    { name: 'etc/shadow', data: 'root:*:::::::\n', mode: 0o600 },
    { name: 'var/www/index.html', data: 'Welcome to the stand-in of a web server.\n' },
  ];
}

export function directory(name: string): ArchiveEntry {
  return { name: `${name}/` };
}

export function program(name: string, data: Uint8Array): ArchiveEntry {
  return { name, data, mode: 0o755 };
}

/** A program of this machine. Raises an Error that says how to get it. */
export function readProgram(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Error(`${path} is missing: run npm run setup`, { cause: error });
  }
}

/** Hard links, as the true image has: masking a symlink would mask busybox itself. */
function applets(): string[] {
  return listedApplets().filter((name) => !['busybox', 'sh', 'ash'].includes(name));
}

function listedApplets(): string[] {
  return execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trimEnd().split('\n');
}

/**
 * Debian's busybox has a shell that runs applets without looking at the files of their names, so that
 * a masked /bin/ls is still run. In this copy the applet has another name that sorts alike; the shell
 * looks for `ls` on the PATH then, as that of the true image does.
 */
function shellThatSeesFiles(): Buffer {
  const busybox = readProgram(BUSYBOX);
  const names = listedApplets();
  const table = busybox.indexOf(`\0${names.join('\0')}\0`);
  if (table < 0) throw new Error(`${BUSYBOX} has no table of its applets as it lists them`);
  const before = names.slice(0, names.indexOf('ls')).join('\0');
  busybox.write('lr', table + 1 + before.length + 1, 'latin1');
  return busybox;
}

/** The shared objects that ldd(1) names, where the programs look for them. */
function librariesOf(programs: readonly string[]): ArchiveEntry[] {
  const listed = execFileSync('ldd', [...programs], { encoding: 'utf8' });
  const paths = [...listed.matchAll(/(?:=> |^\t)(\/\S+) \(0x/gm)].map((match) => match[1] ?? '');
  const unique = [...new Set(paths)];
  const parents = new Set(unique.flatMap(parentsOf));
  return [
    ...[...parents].sort().map((path) => directory(path.slice(1))),
    ...unique.map((path) => program(path.slice(1), readFileSync(realpathSync(path)))),
  ];
}

function parentsOf(path: string): string[] {
  const parts = path.split('/').slice(1, -1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
}
