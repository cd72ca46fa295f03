// DIR/run/up.lock: held by the one `cribus up` of a stack; its content says who that is.

import { existsSync, truncateSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Roots } from '@cribus/contracts/paths.ts';
import { readFileIfExists, tryLock } from '@cribus/host/files.ts';
import { identify, isAlive, type ProcessIdentity } from '@cribus/host/processes.ts';

export interface UpHolder {
  readonly identity: ProcessIdentity;
  /** The gateway answered that it is ready, at least once. */
  readonly ready: boolean;
}

export interface UpLock {
  /** Records that the stack is ready, for a waiting `up --detach`. */
  announce(ready: boolean): Promise<void>;
  close(): void;
}

function lockPath(roots: Roots): string {
  return join(roots.run, 'up.lock');
}

/** Takes the lock; undefined while another `up` (or `down --pods`) holds it. */
export async function takeUpLock(roots: Roots): Promise<UpLock | undefined> {
  const path = lockPath(roots);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const held = tryLock(path);
  if (held === undefined) return undefined;
  const identity = identify(process.pid);
  const announce = (ready: boolean) =>
    // Written in place: a rename would leave the lock on a file that nobody finds again.
    writeFile(path, `${JSON.stringify(encode(identity, ready))}\n`, { mode: 0o600 });
  await announce(false);
  const close = () => {
    // This process may go on, so its name must not stay in a lock that is free; `down --pods` has
    // removed the file by then.
    if (existsSync(path)) truncateSync(path);
    held.close();
  };
  return { announce, close };
}

/** Who holds the lock; undefined when nobody does. */
export async function findUp(roots: Roots): Promise<UpHolder | undefined> {
  const text = (await readFileIfExists(lockPath(roots)))?.toString('utf8') ?? '';
  const holder = decode(text);
  return holder !== undefined && isAlive(holder.identity) ? holder : undefined;
}

function encode(identity: ProcessIdentity | undefined, ready: boolean) {
  return {
    pid: identity?.pid ?? process.pid,
    startTimeTicks: String(identity?.startTimeTicks ?? 0n),
    bootId: identity?.bootId ?? '',
    ready,
  };
}

function decode(text: string): UpHolder | undefined {
  const match =
    /^\{"pid":(\d+),"startTimeTicks":"(\d+)","bootId":"([^"]*)","ready":(true|false)\}\n$/.exec(
      text,
    );
  if (match === null) return undefined;
  const [, pid = '', ticks = '', bootId = '', ready] = match;
  return {
    identity: { pid: Number(pid), startTimeTicks: BigInt(ticks), bootId },
    ready: ready === 'true',
  };
}
