// What belongs to the stack itself: who serves its socket and who may, who may read its credentials,
// handlers that it lost, and whether its clock went back.

import { existsSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { handlerPaths, type StackPaths } from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { type Finding, ok, problem, warning } from './finding.ts';

const CONNECT_BUDGET_MS = 2_000;
/** Files are written with the clock of that time; more than this ahead of now is no rounding. */
const AHEAD_MS_MAX = 60_000;

/** The CRI socket: whether somebody listens where the file is, and that it is root's alone. */
export async function checkSocket(config: Pick<Config, 'gateway'>): Promise<Finding> {
  const path = config.gateway.socket;
  if (!existsSync(path)) return ok('socket', `${path} is free`);
  if (!statSync(path).isSocket()) {
    return problem('socket', `${path} is no socket`, 'move it away, or set gateway.socket');
  }
  const open = statSync(path).mode & 0o007;
  if (open !== 0) {
    const advice = `whoever reaches it is root here: chmod o= ${path}`;
    return problem('socket', `${path} is open to every user of the host`, advice);
  }
  if (await isServed(path)) return ok('socket', `${path} is served, closed to other users`);
  return warning(
    'socket',
    `${path} is there and nobody serves it`,
    'a killed gateway left it; the next start takes it over',
  );
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path, signal: systemClock.timeout(CONNECT_BUDGET_MS) });
    const settle = (served: boolean) => {
      socket.destroy();
      resolve(served);
    };
    socket.on('connect', () => settle(true));
    socket.on('error', (error) => settle(!isErrno(error, 'ECONNREFUSED', 'ENOENT')));
  });
}

/** Seeds and passwords that others than root may read: the directory and the files in it. */
export async function openCredentials(paths: StackPaths): Promise<readonly string[]> {
  const all = await credentialPaths(paths);
  return all.filter((path) => (statSync(path).mode & 0o077) !== 0);
}

/** Undefined where some are open: those are told as leftovers, with the way to close them. */
export async function checkCredentials(paths: StackPaths): Promise<Finding | undefined> {
  const all = await credentialPaths(paths);
  if (all.length === 0) return ok('credentials', 'none yet; they are made at the first start');
  if ((await openCredentials(paths)).length > 0) return undefined;
  const count = all.length - 1;
  const text = `${count} ${count === 1 ? 'file' : 'files'} in ${paths.credentialsDirectory}, for root alone`;
  return ok('credentials', text);
}

async function credentialPaths(paths: StackPaths): Promise<readonly string[]> {
  const directory = paths.credentialsDirectory;
  if (!existsSync(directory)) return [];
  return [directory, ...(await readdir(directory)).map((name) => `${directory}/${name}`)];
}

/**
 * Handlers that have containers and are in no configuration: no worker serves them any more, and their
 * pods run on. That is a person's to decide, so none of it is a leftover.
 */
export async function checkHandlers(
  paths: StackPaths,
  config: Pick<Config, 'runtimes'>,
): Promise<readonly Finding[]> {
  const configured = new Set(Object.keys(config.runtimes.handlers).map(subjectToken));
  const findings: Finding[] = [];
  for (const token of await listDirectory(join(paths.roots.state, 'handlers'))) {
    if (configured.has(token)) continue;
    const count = (await listDirectory(handlerPaths(paths.roots, token).containers)).length;
    if (count === 0) continue;
    const containers = count === 1 ? '1 container is' : `${count} containers are`;
    findings.push(
      problem(
        `handler ${token}`,
        `${containers} on record, and the configuration has no such handler`,
        `put [runtimes.handlers.${token}] back into ${paths.configFile} until its pods are removed`,
      ),
    );
  }
  return findings;
}

/** A clock that was set back breaks certificates, and the order in which the kubelet sees events. */
export function checkClock(stateDirectory: string): Finding {
  const nowMs = Number(systemClock.nowNs() / 1_000_000n);
  const text = new Date(nowMs).toISOString();
  const writtenMs = statSync(stateDirectory, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (nowMs < CLOCK_AFTER_MS) {
    return problem('clock', `${text} is in the past`, 'set the clock: registries will be refused');
  }
  if (writtenMs <= nowMs + AHEAD_MS_MAX) return ok('clock', text);
  return problem(
    'clock',
    `${text} is before ${new Date(writtenMs).toISOString()}, when ${stateDirectory} was written`,
    'set the clock, and keep it by NTP (chrony, systemd-timesyncd)',
  );
}

/** A certificate can't be valid before this program was written. */
const CLOCK_AFTER_MS = Date.UTC(2024, 0, 1);
