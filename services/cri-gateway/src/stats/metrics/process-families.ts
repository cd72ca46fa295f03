// Processes, threads, what they have open, and since when.

import { detail, type Family, gauge, one, type Subject, seconds } from './family.ts';

/** A value of CRI has no sign: -1, "unlimited", is what it is in two's complement. */
const UNLIMITED = (1n << 64n) - 1n;

export const PROCESS_FAMILIES: readonly Family[] = [
  gauge('container_last_seen', { help: 'When it was last sampled, in seconds of 1970.' }, (of) =>
    one(seconds(of.sampledAtNs)),
  ),
  gauge(
    'container_start_time_seconds',
    { help: 'When it was started, in seconds of 1970.' },
    (of) => one(seconds(of.startedAtNs === 0n ? undefined : of.startedAtNs)),
  ),
  gauge(
    'container_creation_time_seconds',
    { help: 'When it was created, in seconds of 1970.', extra: true },
    (of) => one(seconds(of.createdAtNs)),
  ),
  gauge('container_processes', { help: 'Processes.' }, ({ processes, cgroup }) =>
    one(processes?.processes ?? cgroup?.processCount),
  ),
  gauge('container_file_descriptors', { help: 'Open file descriptors.' }, ({ processes }) =>
    one(processes?.fileDescriptors),
  ),
  gauge('container_sockets', { help: 'Open sockets.' }, ({ processes }) => one(processes?.sockets)),
  gauge('container_threads', { help: 'Threads.' }, ({ processes, cgroup }) =>
    one(cgroup?.details?.threads ?? processes?.threads),
  ),
  detail(gauge, 'container_threads_max', {
    help: 'The most threads that it may have; 0 without a limit.',
    pick: (details) =>
      details.threads === undefined ? details.threadsMax : (details.threadsMax ?? 0n),
  }),
  gauge(
    'container_ulimits_soft',
    {
      help: 'Soft limits of its first process; 18446744073709551615 is unlimited.',
      labels: ['ulimit'],
    },
    ({ processes }) => {
      const limit = processes?.openFilesSoftLimit;
      if (limit === undefined) return [];
      return [{ value: limit < 0n ? UNLIMITED : limit, labels: ['max_open_files'] }];
    },
  ),
  gauge(
    'container_tasks_state',
    { help: 'Threads by state.', labels: ['state'] },
    ({ processes }) => states(processes),
  ),
];

/** The kernel doesn't tell which of those in uninterruptible sleep wait for I/O. */
function states(of: Subject['processes']) {
  if (of === undefined) return [];
  return [
    { value: of.sleeping, labels: ['sleeping'] },
    { value: of.running, labels: ['running'] },
    { value: of.stopped, labels: ['stopped'] },
    { value: of.uninterruptible, labels: ['uninterruptible'] },
    { value: 0n, labels: ['iowaiting'] },
  ];
}
