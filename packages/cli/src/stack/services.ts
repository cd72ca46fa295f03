// The parts of a stack by name, and the order in which they are stopped.

import type { ServiceName } from '@cribus/chassis/service.ts';

export const SERVICES = [
  'image-service',
  'sandbox-manager',
  'runtime-runc',
  'runtime-gvisor',
  'cri-gateway',
] as const satisfies readonly ServiceName[];

export const PART_NAMES = ['nats-server', 'redis-server', ...SERVICES] as const;
export type PartName = (typeof PART_NAMES)[number];

/** Each group is stopped after the one before it is gone: those who ask before those who answer. */
export const STOP_ORDER: readonly (readonly PartName[])[] = [
  ['cri-gateway'],
  ['runtime-runc', 'runtime-gvisor'],
  ['sandbox-manager'],
  ['image-service'],
  ['nats-server', 'redis-server'],
];
