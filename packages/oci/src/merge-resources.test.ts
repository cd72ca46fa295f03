import assert from 'node:assert/strict';
import { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { mergeResources } from './merge-resources.ts';

type Partial = Parameters<typeof LinuxContainerResources.fromPartial>[0];
const merge = (former: Partial | undefined, update: Partial) =>
  mergeResources(
    former === undefined ? undefined : LinuxContainerResources.fromPartial(former),
    LinuxContainerResources.fromPartial(update),
  );

describe('resources after an update', () => {
  it('keep what the update leaves at 0 or empty', () => {
    const former = {
      cpuShares: 100n,
      cpuQuota: 20_000n,
      cpuPeriod: 100_000n,
      cpusetCpus: '0',
      cpusetMems: '0',
      oomScoreAdj: 500n,
      memoryLimitInBytes: 10n,
      hugepageLimits: [
        { pageSize: '2MB', limit: 1n },
        { pageSize: '1GB', limit: 2n },
      ],
      unified: { 'memory.high': '1', 'io.weight': '2' },
    };
    assert.deepEqual(merge(former, {}), LinuxContainerResources.fromPartial(former));
    const after = merge(former, {
      cpuQuota: -1n,
      hugepageLimits: [{ pageSize: '1GB', limit: 0n }],
      unified: { 'io.weight': '3' },
    });
    assert.deepEqual(
      [after.cpuQuota, after.cpuShares, after.hugepageLimits, after.unified],
      [
        -1n,
        100n,
        [
          { pageSize: '2MB', limit: 1n },
          { pageSize: '1GB', limit: 0n },
        ],
        { 'memory.high': '1', 'io.weight': '3' },
      ],
    );
    assert.equal(merge(undefined, { cpuShares: 5n }).cpuShares, 5n);
  });

  it('give no swap to a container that had none, and leave the swap of one that had', () => {
    const swapOf = (memory: bigint, swap: bigint, update: Partial) =>
      merge({ memoryLimitInBytes: memory, memorySwapLimitInBytes: swap }, update)
        .memorySwapLimitInBytes;
    assert.equal(swapOf(10n, 10n, { memoryLimitInBytes: 20n }), 20n);
    assert.equal(swapOf(10n, 0n, { memoryLimitInBytes: 20n }), 0n);
    assert.equal(swapOf(10n, 15n, { memoryLimitInBytes: 12n }), 15n);
    assert.equal(swapOf(10n, -1n, { memoryLimitInBytes: 12n }), -1n);
    assert.equal(swapOf(10n, 10n, { memorySwapLimitInBytes: 30n }), 30n);
  });
});
