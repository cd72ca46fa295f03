// Traffic of a pod by interface. Its sockets by state are left out, as in the kubelet: for each pod the
// kernel would walk the table of all connections of the host.

import type { InterfaceUsage } from '@cribus/contracts/gen/node/v1/records.ts';
import { counter, type Family } from './family.ts';

export const NETWORK_FAMILIES: readonly Family[] = [
  traffic('receive_bytes_total', 'Bytes received.', (of) => of.rxBytes),
  traffic('receive_packets_total', 'Packets received.', (of) => of.rxPackets),
  traffic('receive_packets_dropped_total', 'Packets received and dropped.', (of) => of.rxDropped),
  traffic('receive_errors_total', 'Errors while receiving.', (of) => of.rxErrors),
  traffic('transmit_bytes_total', 'Bytes sent.', (of) => of.txBytes),
  traffic('transmit_packets_total', 'Packets sent.', (of) => of.txPackets),
  traffic(
    'transmit_packets_dropped_total',
    'Packets dropped before sending.',
    (of) => of.txDropped,
  ),
  traffic('transmit_errors_total', 'Errors while sending.', (of) => of.txErrors),
];

function traffic(name: string, help: string, pick: (of: InterfaceUsage) => bigint): Family {
  return counter(`container_network_${name}`, { help, labels: ['interface'] }, ({ network }) =>
    (network?.interfaces ?? []).map((of) => ({ value: pick(of), labels: [of.name] })),
  );
}
