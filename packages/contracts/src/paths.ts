// Every path of a stack, from three roots. A stack with `--root DIR` has them all below DIR.

import { join } from 'node:path';

export interface Roots {
  /** Gone after a reboot where it is tmpfs: sockets, namespace pins, mounts. */
  readonly run: string;
  /** Kept: records, layers, exit files. */
  readonly state: string;
  /** Configuration that a person writes. */
  readonly etc: string;
  /** JSON logs of the services. */
  readonly log: string;
}

export const SYSTEM_ROOTS: Roots = {
  run: '/run/cribus',
  state: '/var/lib/cribus',
  etc: '/etc/cribus',
  log: '/var/log/cribus',
};

/** The four roots of a stack that has everything below one directory (`--root`). */
export function rootsBelow(directory: string): Roots {
  return {
    run: join(directory, 'run'),
    state: join(directory, 'state'),
    etc: join(directory, 'etc'),
    log: join(directory, 'log'),
  };
}

/** Linux's sockaddr_un holds 108 bytes with the final NUL (unix(7)); Node truncates silently. */
export const SOCKET_PATH_BYTES_MAX = 107;

export interface StackPaths {
  readonly roots: Roots;
  /** The CRI endpoint. */
  readonly criSocket: string;
  readonly configFile: string;
  readonly certsDirectory: string;
  readonly cniConfigDirectory: string;
  /** What `cribus up` wrote for its parts: one effective configuration for all services. */
  readonly generatedDirectory: string;
  /** 0700: nkey seeds and passwords, one file per user. */
  readonly credentialsDirectory: string;
  /** CNI configuration that `cribus up` provides where the host has none. */
  readonly fallbackCniDirectory: string;
  readonly redisSocket: string;
  /** The CRI endpoint in place of the configured one while `cribus down --pods` removes pods. */
  readonly removalSocket: string;
  readonly images: string;
  readonly layers: string;
  readonly sandboxes: string;
}

/** Every path of a stack, so that no part spells one itself. Pure: makes nothing. */
export function stackPaths(roots: Roots): StackPaths {
  return {
    roots,
    criSocket: join(roots.run, 'cribus.sock'),
    configFile: join(roots.etc, 'cribus.toml'),
    certsDirectory: join(roots.etc, 'certs.d'),
    cniConfigDirectory: join(roots.etc, 'cni', 'net.d'),
    generatedDirectory: join(roots.state, 'generated'),
    credentialsDirectory: join(roots.state, 'credentials'),
    fallbackCniDirectory: join(roots.state, 'cni', 'net.d'),
    redisSocket: join(roots.run, 'redis.sock'),
    removalSocket: join(roots.run, 'down.sock'),
    images: join(roots.state, 'images'),
    layers: join(roots.state, 'images', 'layers'),
    sandboxes: join(roots.state, 'sandboxes'),
  };
}

/** A sandbox's record and files (persistent) and pins (not). */
export function sandboxPaths(roots: Roots, sandboxId: string) {
  const directory = join(roots.state, 'sandboxes', sandboxId);
  const pins = join(roots.run, 'sandboxes', sandboxId);
  return {
    directory,
    record: join(directory, 'record.pb'),
    resolvConf: join(directory, 'resolv.conf'),
    hostname: join(directory, 'hostname'),
    hosts: join(directory, 'hosts'),
    pins,
    /** A tmpfs; a pod with the host's IPC has none, it gets the host's /dev/shm. */
    shm: join(pins, 'shm'),
  };
}

/** What one handler's worker owns; `lock` is flocked by the live instance. */
export function handlerPaths(roots: Roots, handlerToken: string) {
  const directory = join(roots.state, 'handlers', handlerToken);
  return {
    directory,
    lock: join(directory, 'lock'),
    containers: join(directory, 'containers'),
    /** conmon writes `<container id>` with the exit code here. */
    exits: join(directory, 'exits'),
    /** Not below `run`: most Debian machines have /run mounted noexec. */
    initRootfs: join(directory, 'init-rootfs'),
    run: join(roots.run, 'handlers', handlerToken),
    /** The engine's own `--root`. */
    engineRoot: join(roots.run, 'handlers', handlerToken, 'engine'),
    /** In a 0700 directory; short, for the sake of sockaddr_un. */
    sessionSocket: join(roots.run, 's', handlerToken),
  };
}

/** Of a container's directory: cAdvisor looks for writable layers by this name. */
export const WRITABLE_LAYER = 'diff';

/** One container's record and writable layer (persistent), bundle and root mount (not). */
export function containerPaths(roots: Roots, handlerToken: string, containerId: string) {
  const handler = handlerPaths(roots, handlerToken);
  const directory = join(handler.containers, containerId);
  const run = join(handler.run, containerId);
  return {
    directory,
    record: join(directory, 'record.pb'),
    upper: join(directory, WRITABLE_LAYER),
    /** Of containers that were made by version 0.1.0. */
    formerUpper: join(directory, 'upper'),
    work: join(directory, 'work'),
    /** Volumes that the image declares, one directory each. */
    declaredVolumes: join(directory, 'volumes'),
    /** conmon's --persist-dir. */
    persist: join(directory, 'persist'),
    bundle: run,
    rootfs: join(run, 'rootfs'),
    /** Images mounted as volumes, one directory each. */
    volumes: join(run, 'volumes'),
    pidFile: join(run, 'pid'),
    monitorPidFile: join(run, 'monitor-pid'),
  };
}
