// The links below /var/log/containers by which people and log collectors find a container's log.

import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { NodePaths, PodManifest } from './manifest.ts';

export interface LoggedContainer {
  readonly pod: PodManifest;
  readonly name: string;
  readonly id: string;
}

/** Made when a container was started, to the absolute path of its log. */
export function linkLog(paths: NodePaths, container: LoggedContainer, log: string): void {
  mkdirSync(paths.containerLogs, { recursive: true });
  symlinkSync(log, logLink(paths, container));
}

export function unlinkLog(paths: NodePaths, container: LoggedContainer): void {
  rmSync(logLink(paths, container), { force: true });
}

/** Empty if there is none. */
export function readLog(paths: NodePaths, container: LoggedContainer): string {
  const link = logLink(paths, container);
  return existsSync(link) ? readFileSync(link, 'utf8') : '';
}

function logLink(paths: NodePaths, { pod, name, id }: LoggedContainer): string {
  return join(paths.containerLogs, `${pod.name}_${pod.namespace}_${name}-${id}.log`);
}
