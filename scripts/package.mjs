// Builds the Debian package from the built tree: what deploy/install.sh installs, with the control
// files of deploy/debian. Prints the path of the package.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };
const SCRIPTS = ['postinst', 'prerm', 'postrm'];

/**
 * Builds the package below `directory`; resolves to its path. One with a raise stands for a next version:
 * its services write records of a later format.
 */
export async function buildPackage(
  directory,
  { version = packageVersion(), recordFormatRaise = 0 } = {},
) {
  const arch = ARCHITECTURES[process.arch];
  if (arch === undefined) throw new Error(`there is no package for ${process.arch}`);
  const stage = mkdtempSync(join(tmpdir(), 'cribus-package-'));
  try {
    // dpkg-deb takes the modes of the tree as they are.
    chmodSync(stage, 0o755);
    run('sh', [join(root, 'deploy', 'install.sh'), '--destdir', stage]);
    if (recordFormatRaise > 0) {
      await build({ dist: join(stage, 'usr', 'lib', 'cribus', 'dist'), recordFormatRaise });
    }
    const [kilobytes] = run('du', ['-sk', stage]).split('\t');
    const control = join(stage, 'DEBIAN');
    mkdirSync(control, { mode: 0o755 });
    const text = read('control')
      .replace('@VERSION@', version)
      .replace('@ARCH@', arch)
      .replace('@SIZE@', kilobytes);
    writeFileSync(join(control, 'control'), text);
    writeFileSync(join(control, 'conffiles'), read('conffiles'));
    for (const name of SCRIPTS) writeFileSync(join(control, name), read(name), { mode: 0o755 });
    mkdirSync(directory, { recursive: true });
    const file = join(directory, `cribus_${version}_${arch}.deb`);
    run('dpkg-deb', ['--root-owner-group', '-Zxz', '-z1', '--build', stage, file]);
    return file;
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

function packageVersion() {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
}

function read(name) {
  return readFileSync(join(root, 'deploy', 'debian', name), 'utf8');
}

function run(command, args) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!existsSync(join(root, 'dist', 'cribus.mjs'))) {
    console.error('It is not built yet: run npm run setup first.');
    process.exit(1);
  }
  console.log(await buildPackage(join(root, 'dist-package')));
}
