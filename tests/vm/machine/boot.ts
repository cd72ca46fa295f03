// One life of the machine, from its first boot to its power-off: qemu with software emulation, a disk
// that forgets, the tree on a disk that is only read, and a port on which the tests tell.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createReadStream, existsSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@cribus/host/clock.ts';
import type { BaseImage } from './base-image.ts';

const execute = promisify(execFile);
const MEMORY_MB = 4096;
const CPUS = 2;
const LOOK_AGAIN_MS = 500;
const QEMU = process.arch === 'x64' ? 'qemu-system-x86_64' : 'qemu-system-aarch64';

export interface Life {
  /** Everything that the tests said. */
  readonly said: string;
  /** The kernel and systemd, for whoever looks for a reason; its last lines. */
  readonly console: string;
}

/** Boots it and waits for its power-off, or kills it when the signal aborts. */
export async function boot(options: {
  readonly image: BaseImage;
  /** A disk with the project's tree. */
  readonly tree: string;
  /** Told to the tests as NAME=value. */
  readonly settings: Readonly<Record<string, string>>;
  readonly onOutput: (text: string) => void;
  readonly signal: AbortSignal;
}): Promise<Life> {
  const { image, tree, settings, onOutput, signal } = options;
  const directory = await mkdtemp(join(tmpdir(), 'cribus-vm-'));
  const disk = join(directory, 'disk.qcow2');
  const said = join(directory, 'said');
  const serial = join(directory, 'console');
  try {
    const backing = ['-b', image.disk, '-F', 'raw'];
    await execute('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, disk]);
    const words = Object.entries(settings).map(([name, value]) => `cribus.${name}=${value}`);
    const child = start({ image, tree, disk, said, serial, words });
    await follow(child, { said, onOutput, signal });
    return { said: await read(said), console: (await read(serial)).slice(-8_000) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function start(plan: {
  readonly image: BaseImage;
  readonly tree: string;
  readonly disk: string;
  readonly said: string;
  readonly serial: string;
  readonly words: readonly string[];
}): ChildProcess {
  const { image, tree, disk, said, serial, words } = plan;
  const kernelWords = `console=ttyS0 root=/dev/vda rw panic=1 quiet ${words.join(' ')}`;
  const args = [
    // V8 keeps its code behind protection keys where there are some, which the emulation has no luck with.
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max,-pku'],
    ...['-smp', `${CPUS}`, '-m', `${MEMORY_MB}`, '-display', 'none', '-nodefaults'],
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', kernelWords],
    ...['-drive', `file=${disk},format=qcow2,if=virtio,cache=unsafe`],
    ...['-drive', `file=${tree},format=raw,if=virtio,readonly=on`],
    ...['-device', 'virtio-serial', '-chardev', `file,id=said,path=${said}`],
    ...['-device', 'virtserialport,chardev=said,name=cribus.said'],
    ...['-serial', `file:${serial}`],
  ];
  return spawn(QEMU, args, { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Hands on what the tests say while they run. */
async function follow(
  child: ChildProcess,
  options: {
    readonly said: string;
    readonly onOutput: (text: string) => void;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { said, onOutput, signal } = options;
  const ended = new AbortController();
  const gone = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', () => resolve());
  }).finally(() => ended.abort());
  const kill = () => child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  let at = 0;
  const handOn = async () => {
    const size = existsSync(said) ? (await stat(said)).size : 0;
    if (size === at) return;
    for await (const chunk of createReadStream(said, { start: at, end: size - 1 })) {
      onOutput(String(chunk));
    }
    at = size;
  };
  try {
    while (!ended.signal.aborted) {
      await systemClock.sleep(LOOK_AGAIN_MS, ended.signal).catch(() => undefined);
      await handOn();
    }
    await gone;
  } finally {
    signal.removeEventListener('abort', kill);
    child.kill('SIGKILL');
  }
  signal.throwIfAborted();
}

async function read(path: string): Promise<string> {
  if (!existsSync(path)) return '';
  let text = '';
  for await (const chunk of createReadStream(path, 'utf8')) text += chunk;
  return text;
}
