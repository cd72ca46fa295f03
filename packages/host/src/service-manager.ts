// The protocol between a service and the service manager that started it (sd_notify(3),
// sd_watchdog_enabled(3), sd_listen_fds(3)). Without a manager every function here does nothing.

import { closeSync } from 'node:fs';
import { checked, libc } from './libc.ts';

/** From <sys/socket.h>. */
const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const MSG_NOSIGNAL = 0x4000;
const SUN_PATH_BYTES_MAX = 108;
/** The first descriptor that is passed (sd_listen_fds(3), SD_LISTEN_FDS_START). */
const LISTEN_FDS_START = 3;
const LISTEN_FDS_MAX = 16;
const MICROSECONDS_PER_MS = 1_000;

export interface ServiceManager {
  /**
   * Tells the manager, as in `READY=1` or `STATUS=…`, one assignment a line. Throws with an errno
   * code when the manager can't be told.
   */
  notify(state: string): void;
  /** A `WATCHDOG=1` is due within this time, in milliseconds; undefined: none is wanted. */
  readonly watchdogMs: number | undefined;
  /** Listening sockets that the manager opened for this process. */
  readonly listenFds: readonly number[];
}

/**
 * Reads what the manager left in the environment, and takes it out of there: a container's engine
 * would take the variables for its own.
 */
export function readServiceManager(environment: NodeJS.ProcessEnv): ServiceManager {
  const socket = take(environment, 'NOTIFY_SOCKET');
  const watchdogUs = Number(take(environment, 'WATCHDOG_USEC') ?? 0);
  const watchdogPid = take(environment, 'WATCHDOG_PID');
  const listenPid = take(environment, 'LISTEN_PID');
  const listenFds = Number(take(environment, 'LISTEN_FDS') ?? 0);
  take(environment, 'LISTEN_FDNAMES');
  const watched = watchdogUs > 0 && (watchdogPid ?? `${process.pid}`) === `${process.pid}`;
  const passed = listenPid === `${process.pid}` ? Math.min(listenFds, LISTEN_FDS_MAX) : 0;
  return {
    notify: (state) => {
      if (socket !== undefined) send(socket, state);
    },
    watchdogMs: watched ? watchdogUs / MICROSECONDS_PER_MS : undefined,
    listenFds: Array.from({ length: passed }, (_, index) => LISTEN_FDS_START + index),
  };
}

function take(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = environment[name];
  delete environment[name];
  return value === '' ? undefined : value;
}

/** One datagram; a path that begins with @ is in the abstract namespace (unix(7)). */
function send(socketPath: string, state: string): void {
  const path = Buffer.from(socketPath);
  if (path.length >= SUN_PATH_BYTES_MAX) throw new RangeError(`${socketPath} is too long`);
  if (socketPath.startsWith('@')) path[0] = 0;
  const address = Buffer.alloc(2 + path.length + (path[0] === 0 ? 0 : 1));
  address.writeUInt16LE(AF_UNIX);
  path.copy(address, 2);
  const data = Buffer.from(state);
  const fd = checked(libc().socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0), 'socket', 'to notify');
  try {
    const sent = libc().sendto(fd, data, data.length, MSG_NOSIGNAL, address, address.length);
    checked(sent, 'sendto', `'${socketPath}'`);
  } finally {
    closeSync(fd);
  }
}
