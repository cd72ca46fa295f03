// Test images made of Debian's static busybox, and the registry that serves them.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import { type Registry, startRegistry } from '@cribus/cli/tour/registry.ts';
import type { TarEntry } from '@cribus/cli/tour/tar-writer.ts';

export interface TestRegistry extends Registry {
  /** As 127.0.0.1:40123/test/busybox:1. */
  readonly busybox: string;
}

/** A root filesystem of busybox: every applet a hard link, root and one more user, a web page. */
export function busyboxLayer(): readonly TarEntry[] {
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n');
  return [
    ...['bin', 'etc', 'tmp', 'www', 'root', 'proc', 'sys', 'dev'].map(
      (path): TarEntry => ({ kind: 'directory', path, mode: path === 'tmp' ? 0o1777 : 0o755 }),
    ),
    { kind: 'file', path: 'bin/busybox', mode: 0o755, data: readFileSync('/bin/busybox') },
    ...applets
      .filter((name) => name !== 'busybox')
      .map((name): TarEntry => ({ kind: 'hardlink', path: `bin/${name}`, target: 'bin/busybox' })),
    {
      kind: 'file',
      path: 'etc/passwd',
      mode: 0o644,
      data: Buffer.from('root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n'),
    },
    {
      kind: 'file',
      path: 'etc/group',
      mode: 0o644,
      data: Buffer.from('root:x:0:\napp:x:1000:\nextra:x:2000:app\n'),
    },
    { kind: 'file', path: 'www/index.html', mode: 0o644, data: Buffer.from('hello from a pod\n') },
  ];
}

/** Starts a registry that holds test/busybox:1. */
export async function startTestRegistry(): Promise<TestRegistry> {
  const registry = await startRegistry();
  const image = buildImage({
    layers: [busyboxLayer()],
    config: { Cmd: ['/bin/sh'], Env: ['PATH=/bin'], WorkingDir: '/' },
  });
  await pushImage(image, ['1', 'latest'], {
    registry: registry.url,
    repository: 'test/busybox',
    signal: AbortSignal.timeout(30_000),
  });
  return { ...registry, busybox: `${registry.host}/test/busybox:1` };
}

/** Writes certs.d/<host>/hosts.toml below a stack's root. */
export async function writeHosts(root: string, host: string, toml: string): Promise<void> {
  const directory = join(root, 'etc', 'certs.d', host);
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'hosts.toml'), toml);
}
