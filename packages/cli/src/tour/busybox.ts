// The tour's own image: Debian's static busybox with a web page, served by its httpd.

import { readFile } from 'node:fs/promises';
import { Failure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { run } from '@cribus/host/spawn.ts';
import { type BuiltImage, buildImage } from './image.ts';
import type { TarEntry } from './tar-writer.ts';

const BUSYBOX = '/bin/busybox';
/** The port on which the tour's pods answer. */
export const WEB_PORT = 80;

const DIRECTORIES: Readonly<Record<string, number>> = {
  bin: 0o755,
  dev: 0o755,
  etc: 0o755,
  proc: 0o755,
  root: 0o700,
  sys: 0o755,
  tmp: 0o1777,
  www: 0o755,
};

/**
 * Builds the image; its command logs a line and then serves `page` on WEB_PORT, logging every request.
 * Raises unavailable where busybox-static is not installed.
 */
export async function buildWebImage(page: string, signal: AbortSignal): Promise<BuiltImage> {
  const busybox = await readBusybox();
  const listed = await run({ command: BUSYBOX, args: ['--list'], signal });
  const applets = listed.stdout
    .toString()
    .split('\n')
    .filter((name) => name !== '' && name !== 'busybox');
  const layer: TarEntry[] = [
    ...Object.entries(DIRECTORIES).map(
      ([path, mode]): TarEntry => ({ kind: 'directory', path, mode }),
    ),
    { kind: 'file', path: 'bin/busybox', mode: 0o755, data: busybox },
    ...applets.map(
      (name): TarEntry => ({ kind: 'hardlink', path: `bin/${name}`, target: 'bin/busybox' }),
    ),
    {
      kind: 'file',
      path: 'etc/passwd',
      mode: 0o644,
      data: Buffer.from('root:x:0:0:root:/root:/bin/sh\n'),
    },
    { kind: 'file', path: 'www/index.html', mode: 0o644, data: Buffer.from(page) },
  ];
  const script = `echo "serving on port ${WEB_PORT} as $(hostname)"; exec httpd -f -v -p ${WEB_PORT} -h /www`;
  return buildImage({
    layers: [layer],
    config: {
      Cmd: ['/bin/sh', '-c', script],
      Env: ['PATH=/bin'],
      WorkingDir: '/',
      ExposedPorts: { [`${WEB_PORT}/tcp`]: {} },
    },
  });
}

async function readBusybox(): Promise<Buffer> {
  try {
    return await readFile(BUSYBOX);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    throw new Failure(
      'unavailable',
      `${BUSYBOX} is missing: run npm run setup, or give the tour an --image`,
    );
  }
}
