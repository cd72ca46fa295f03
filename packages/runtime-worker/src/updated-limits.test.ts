import assert from 'node:assert/strict';
import { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';
import { invalidOf } from '@cribus/oci/invalid-field.ts';
import { mergeResources } from '@cribus/oci/merge-resources.ts';
import { buildResources } from '@cribus/oci/resources.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import { describe, it } from 'mocha';
import { updatedLimits } from './updated-limits.ts';

const MIB = 1024n * 1024n;
type Resources = Parameters<typeof LinuxContainerResources.fromPartial>[0];

describe('limits that an update changes', () => {
  const check = (cgroupVersion: 'v1' | 'v2', former: Resources, update: Resources) => {
    const [before, asked] = [former, update].map(LinuxContainerResources.fromPartial);
    assert.ok(before !== undefined && asked !== undefined);
    const resources = mergeResources(before, asked);
    const host = { cgroupVersion, swapAccounting: true } as HostFacts;
    const { resources: built } = buildResources({ resources, host }, invalidOf('container c'));
    return updatedLimits(asked, { built, former: before });
  };

  it('are those that it names, and with memory the one of memory and swap', () => {
    const former = { cpuShares: 512n, memoryLimitInBytes: 64n * MIB };
    assert.deepEqual(check('v2', former, { cpuQuota: 5_000n }), {
      cpuSharesBefore: 512n,
      cpuQuotaUs: 5_000n,
    });
    assert.deepEqual(check('v2', former, { memoryLimitInBytes: 96n * MIB }), {
      cpuSharesBefore: 512n,
      memoryBytes: 96n * MIB,
      memoryAndSwapBytes: 96n * MIB,
    });
  });

  it('leave the swap alone that memory.swap.max gave, where there is such a file', () => {
    const former = { memoryLimitInBytes: 64n * MIB, unified: { 'memory.swap.max': '1000' } };
    const more = { memoryLimitInBytes: 96n * MIB };
    assert.deepEqual(check('v2', former, more), { memoryBytes: 96n * MIB, unified: {} });
    const unified = { 'memory.swap.max': 'max' };
    assert.deepEqual(check('v2', {}, { ...more, unified }), { memoryBytes: 96n * MIB, unified });
    const both = { memoryBytes: 96n * MIB, memoryAndSwapBytes: 96n * MIB };
    assert.deepEqual(check('v1', former, more), both);
  });
});
