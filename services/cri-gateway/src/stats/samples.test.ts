import assert from 'node:assert/strict';
import { ContainerUsage } from '@cribus/contracts/gen/node/v1/records.ts';
import { describe, it } from 'mocha';
import { nanoCores, nextSample, type Sample } from './samples.ts';

const SECOND_NS = 1_000_000_000n;

/** Readings of one container: when, in milliseconds, and its processor time in milliseconds. */
function follow(readings: readonly (readonly [atMs: number, cpuMs: number])[]) {
  let sample: Sample<ContainerUsage> | undefined;
  for (const [atMs, cpuMs] of readings) {
    const cgroup = { sampledAtNs: BigInt(atMs) * 1_000_000n, cpuNs: BigInt(cpuMs) * 1_000_000n };
    sample = nextSample(sample, ContainerUsage.fromPartial({ cgroup }));
  }
  assert.ok(sample !== undefined);
  return nanoCores(sample);
}

describe('rates from samples', () => {
  it('need two readings that are far enough apart', () => {
    assert.equal(follow([[0, 0]]), undefined);
    assert.equal(
      follow([
        [0, 0],
        [50, 50],
      ]),
      undefined,
    );
    assert.equal(
      follow([
        [0, 0],
        [1000, 250],
      ]),
      SECOND_NS / 4n,
    );
  });

  it('are of the last second, also when somebody asks in between', () => {
    const steady = [
      [0, 0],
      [1000, 1000],
      [2000, 1000],
    ] as const;
    assert.equal(follow(steady), 0n);
    assert.equal(follow([...steady, [2100, 1100]]), SECOND_NS / 11n);
    assert.equal(follow([...steady, [2100, 1100], [2600, 1600]]), SECOND_NS);
  });

  it('begin anew when the counter does, and do not change while a reading is the same one', () => {
    assert.equal(
      follow([
        [0, 500],
        [1000, 20],
      ]),
      undefined,
    );
    assert.equal(
      follow([
        [0, 0],
        [3000, 300],
        [3000, 300],
      ]),
      SECOND_NS / 10n,
    );
  });

  it('keep the last reading with details', () => {
    const detailed = ContainerUsage.fromPartial({ cgroup: { sampledAtNs: 1n, details: {} } });
    const plain = ContainerUsage.fromPartial({ cgroup: { sampledAtNs: 2n } });
    const sample = nextSample(nextSample(undefined, detailed), plain);
    assert.deepEqual([sample.latest, sample.detailed], [plain, detailed]);
  });
});
