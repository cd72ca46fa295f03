// The writable layer and the filesystem that holds it, and traffic with block devices.

import { counter, type Family, gauge, type Subject, type Value } from './family.ts';

const labels = ['device'];

export const FILESYSTEM_FAMILIES: readonly Family[] = [
  layer('container_fs_usage_bytes', 'Bytes in the writable layer.', (of) => of.usedBytes),
  layer(
    'container_fs_limit_bytes',
    'Size of the filesystem that holds the writable layer.',
    (of) => of.capacityBytes,
  ),
  layer('container_fs_inodes_free', 'Free inodes of that filesystem.', (of) => of.inodesFree),
  layer('container_fs_inodes_total', 'Inodes of that filesystem.', (of) => of.inodesTotal),
  device('container_fs_reads_bytes_total', 'Bytes read.', 'bytes', 'Read'),
  device('container_fs_reads_total', 'Reads done.', 'operations', 'Read'),
  device('container_fs_sector_reads_total', 'Sectors read.', 'sectors', 'Read'),
  device('container_fs_reads_merged_total', 'Reads merged into others.', 'merged', 'Read'),
  device('container_fs_read_seconds_total', 'Time spent reading.', 'service_ns', 'Read'),
  device('container_fs_writes_bytes_total', 'Bytes written.', 'bytes', 'Write'),
  device('container_fs_writes_total', 'Writes done.', 'operations', 'Write'),
  device('container_fs_sector_writes_total', 'Sectors written.', 'sectors', 'Write'),
  device('container_fs_writes_merged_total', 'Writes merged into others.', 'merged', 'Write'),
  device('container_fs_write_seconds_total', 'Time spent writing.', 'service_ns', 'Write'),
  gauge('container_fs_io_current', { help: 'Requests under way.', labels, extra: true }, (of) =>
    counts(of, 'queued', 'Total'),
  ),
  device('container_fs_io_time_seconds_total', 'Time spent on I/O.', 'service_ns', 'Total'),
  ...['usage', 'wait', 'indebt', 'indelay'].map((what) =>
    device(
      `container_fs_io_cost_${what}_seconds_total`,
      `The ${what} that io.cost counts.`,
      `cost.${what}`,
      'Count',
    ),
  ),
  counter(
    'container_blkio_device_usage_total',
    {
      help: 'Bytes by block device and operation.',
      labels: ['device', 'major', 'minor', 'operation'],
    },
    ({ cgroup }) =>
      (cgroup?.details?.devices ?? []).flatMap(({ device: name, major, minor, counts: all }) =>
        all
          .filter(({ what }) => what === 'bytes')
          .map(({ operation, value }) => ({
            value,
            labels: [name, String(major), String(minor), operation],
          })),
      ),
  ),
];

function layer(
  name: string,
  help: string,
  pick: (of: NonNullable<Subject['layer']>) => bigint,
): Family {
  return gauge(name, { help, labels }, ({ layer: of }) =>
    of === undefined ? [] : [{ value: pick(of), labels: [of.device] }],
  );
}

/** What only some schedulers count is there where they do. */
function device(name: string, help: string, what: string, operation: string): Family {
  const extra = what !== 'bytes' && what !== 'operations';
  return counter(name, { help, labels, extra }, (of) => counts(of, what, operation));
}

/** Times are in nanoseconds, costs in microseconds; both are shown in seconds. */
const PER_SECOND: Readonly<Record<string, bigint>> = { service_ns: 1_000_000_000n };

function counts({ cgroup }: Subject, what: string, operation: string): readonly Value[] {
  const per = what.startsWith('cost.') ? 1_000_000n : (PER_SECOND[what] ?? 1n);
  return (cgroup?.details?.devices ?? []).flatMap(({ device: name, counts: all }) =>
    all
      .filter((count) => count.what === what && count.operation === operation)
      .map(({ value }) => ({ value: value / per, labels: [name] })),
  );
}
