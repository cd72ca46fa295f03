// How long tasks waited for what is short (the kernel's accounting/psi.rst).

import type { CgroupUsage } from '@cribus/contracts/gen/node/v1/records.ts';
import { counter, type Family, one } from './family.ts';

export const PRESSURE_FAMILIES: readonly Family[] = [
  ...pressure('cpu', ({ cpuPressure }) => cpuPressure),
  ...pressure('memory', ({ memoryPressure }) => memoryPressure),
  ...pressure('io', ({ ioPressure }) => ioPressure),
];

function pressure(
  resource: string,
  pick: (of: CgroupUsage) => CgroupUsage['cpuPressure'],
): readonly Family[] {
  const waited = (state: string, whose: 'some' | 'full') =>
    counter(
      `container_pressure_${resource}_${state}_seconds_total`,
      {
        help: `Time in which ${whose === 'some' ? 'some' : 'all'} of its tasks waited for ${resource}, in seconds.`,
      },
      ({ cgroup }) => {
        const us = cgroup === undefined ? undefined : pick(cgroup)?.[whose]?.totalUs;
        return one(us === undefined ? undefined : us / 1_000_000n);
      },
    );
  return [waited('waiting', 'some'), waited('stalled', 'full')];
}
