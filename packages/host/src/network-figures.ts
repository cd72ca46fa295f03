// The counters of a network namespace, all read in one visit to it.

import { closeSync, openSync, readSync } from 'node:fs';
import { readUsageFile } from './cgroup-usage.ts';
import { isErrno } from './errno.ts';
import {
  type InterfaceCounters,
  insideNetworkNamespace,
  parseInterfaceCounters,
} from './namespaces.ts';

/** Sockets in one state. */
export interface SocketCount {
  readonly protocol: 'tcp' | 'tcp6' | 'udp' | 'udp6';
  /** As cAdvisor names it. */
  readonly state: string;
  readonly count: bigint;
}

export interface NetworkFigures {
  /** All interfaces, `lo` included. */
  readonly interfaces: readonly InterfaceCounters[];
  /** Empty unless asked for; without a protocol whose table is larger than TABLE_BYTES_MAX. */
  readonly sockets: SocketCount[];
}

/** Some 6,000 sockets: the kernel writes the table anew for each reader, slowly. */
const TABLE_BYTES_MAX = 1024 * 1024;

/** enum in <net/tcp_states.h>, by its number. */
const TCP_STATES: Readonly<Record<string, string>> = {
  '01': 'established',
  '02': 'synsent',
  '03': 'synrecv',
  '04': 'finwait1',
  '05': 'finwait2',
  '06': 'timewait',
  '07': 'close',
  '08': 'closewait',
  '09': 'lastack',
  '0A': 'listen',
  '0B': 'closing',
};
/** A bound UDP socket is in the state that TCP calls CLOSE. */
const UDP_BOUND = '07';

/** Reads a pinned network namespace. Throws ENOENT when there is no such pin. */
export function networkFigures(
  netnsPath: string,
  options: { readonly sockets: boolean },
): NetworkFigures {
  const texts = insideNetworkNamespace(netnsPath, () => ({
    interfaces: readUsageFile('/proc/thread-self/net/dev') ?? '',
    tables: options.sockets
      ? (['tcp', 'tcp6', 'udp', 'udp6'] as const).map((protocol) => ({
          protocol,
          text: readTable(`/proc/thread-self/net/${protocol}`),
        }))
      : [],
  }));
  return {
    interfaces: parseInterfaceCounters(texts.interfaces),
    sockets: texts.tables.flatMap(({ protocol, text }) => {
      if (text === undefined) return [];
      return protocol.startsWith('tcp') ? tcpCounts(protocol, text) : udpCounts(protocol, text);
    }),
  };
}

/** Undefined for a protocol that the kernel lacks, and for a table that is too large. */
function readTable(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    const pieces: string[] = [];
    const buffer = Buffer.allocUnsafe(64 * 1024);
    for (let bytes = 0; bytes <= TABLE_BYTES_MAX; ) {
      const read = readSync(fd, buffer, 0, buffer.length, null);
      if (read === 0) return pieces.join('');
      pieces.push(buffer.toString('latin1', 0, read));
      bytes += read;
    }
    return undefined;
  } finally {
    closeSync(fd);
  }
}

/** Counts the lines of /proc/net/tcp (proc_net_tcp.rst) by state; every state is there. */
export function tcpCounts(protocol: SocketCount['protocol'], text: string): SocketCount[] {
  const counts = new Map(Object.values(TCP_STATES).map((state) => [state, 0n]));
  for (const { state } of sockets(text)) {
    const name = TCP_STATES[state];
    if (name !== undefined) counts.set(name, (counts.get(name) ?? 0n) + 1n);
  }
  return [...counts].map(([state, count]) => ({ protocol, state, count }));
}

/** Of /proc/net/udp: bound sockets, bytes that wait in their queues, datagrams dropped. */
export function udpCounts(protocol: SocketCount['protocol'], text: string): SocketCount[] {
  let [listen, dropped, received, sent] = [0n, 0n, 0n, 0n];
  for (const { state, queues, last } of sockets(text)) {
    if (state === UDP_BOUND) listen += 1n;
    const [tx = '0', rx = '0'] = queues.split(':');
    sent += BigInt(`0x${tx}`);
    received += BigInt(`0x${rx}`);
    if (/^\d+$/.test(last)) dropped += BigInt(last);
  }
  return [
    { protocol, state: 'listen', count: listen },
    { protocol, state: 'dropped', count: dropped },
    { protocol, state: 'rxqueued', count: received },
    { protocol, state: 'txqueued', count: sent },
  ];
}

function sockets(text: string) {
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length > 4)
    .map((fields) => ({
      state: fields[3] ?? '',
      queues: fields[4] ?? '',
      last: fields.at(-1) ?? '',
    }));
}
