import assert from 'node:assert/strict';
import {
  ContainerPhase,
  ContainerRecord,
  ContainerUsage,
  SandboxRecord,
  SandboxUsage,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { describe, it } from 'mocha';
import { toContainerStats } from './container-stats.ts';
import { toPodSandboxStats } from './sandbox-stats.ts';

const stall = { totalUs: 3n, avg10: 1, avg60: 2, avg300: 3 };
const record = (fields: object = {}) =>
  ContainerRecord.fromPartial({
    id: 'c',
    phase: ContainerPhase.RUNNING,
    config: { metadata: { name: 'main', attempt: 2 }, labels: { a: '1' } },
    ...fields,
  });
const usage = (fields: object = {}) =>
  ContainerUsage.fromPartial({
    cgroup: {
      sampledAtNs: 9n,
      cpuNs: 7n,
      memoryUsageBytes: 100n,
      memoryWorkingSetBytes: 60n,
      processCount: 2n,
    },
    ...fields,
  });

describe('statistics of a container', () => {
  it('wrap what is known, in the units of CRI, and leave the rest out', () => {
    const full = usage({
      cgroup: {
        ...usage().cgroup,
        memoryLimitBytes: 80n,
        swapUsageBytes: 5n,
        swapLimitBytes: 4n,
        ioPressure: { some: stall },
      },
      writableLayer: { sampledAtNs: 8n, usedBytes: 4096n, inodesUsed: 3n },
    });
    const stats = toContainerStats(record(), { latest: full }, '/images');
    assert.deepEqual(stats.attributes?.metadata, { name: 'main', attempt: 2 });
    assert.equal(stats.cpu?.usageCoreNanoSeconds?.value, 7n);
    assert.equal(stats.cpu?.usageNanoCores, undefined, 'of one reading there is no rate');
    assert.equal(stats.memory?.availableBytes?.value, 20n);
    assert.equal(stats.memory?.rssBytes, undefined);
    assert.deepEqual(stats.swap?.swapAvailableBytes, { value: 0n });
    assert.equal(stats.io?.psi?.Some?.Total, 3000n);
    assert.equal(stats.cpu?.psi, undefined);
    assert.equal(stats.writableLayer?.fsId?.mountpoint, '/images');
    const plain = toContainerStats(record(), { latest: usage() }, '/images');
    assert.deepEqual(
      [plain.memory?.availableBytes, plain.swap, plain.io, plain.writableLayer],
      [undefined, undefined, undefined, undefined],
    );
  });

  it('have neither processor time nor memory for one that has ended, and nothing for one not sampled', () => {
    const exited = record({ phase: ContainerPhase.EXITED });
    const layer = { usedBytes: 1n, inodesUsed: 1n };
    const stats = toContainerStats(exited, { latest: usage({ writableLayer: layer }) }, '/i');
    assert.deepEqual([stats.cpu, stats.memory], [undefined, undefined]);
    assert.equal(stats.writableLayer?.usedBytes?.value, 1n);
    const none = toContainerStats(record(), undefined, '/i');
    assert.deepEqual([none.attributes?.id, none.cpu], ['c', undefined]);
  });
});

describe('statistics of a pod', () => {
  const sandbox = SandboxRecord.fromPartial({
    id: 's',
    config: { metadata: { name: 'pod' } },
    network: { interface: 'eth0' },
  });
  const parts = (latest: object, containers: readonly (readonly [object, object])[]) => ({
    record: sandbox,
    sample: { latest: SandboxUsage.fromPartial(latest) },
    containers: containers.map(([of, used]) => ({
      record: record(of),
      sample: { latest: usage(used) },
    })),
    mountpoint: '/i',
  });
  const own = { id: 'p', sandboxProcess: true };

  it('are those of its cgroup, else the sum of what runs in it, which is listed without its own process', () => {
    const ofCgroup = toPodSandboxStats(
      parts({ cgroup: { sampledAtNs: 1n, cpuNs: 50n } }, [[{}, {}]]),
    );
    assert.equal(ofCgroup.linux?.cpu?.usageCoreNanoSeconds?.value, 50n);
    const summed = toPodSandboxStats(
      parts({}, [
        [{}, {}],
        [own, {}],
      ]),
    ).linux;
    assert.equal(summed?.cpu?.usageCoreNanoSeconds?.value, 14n);
    assert.equal(summed?.memory?.workingSetBytes?.value, 120n);
    assert.equal(summed?.process?.processCount?.value, 4n);
    assert.deepEqual(
      summed?.containers.map(({ attributes }) => attributes?.id),
      ['c'],
    );
    assert.equal(toPodSandboxStats(parts({}, [])).linux?.cpu, undefined);
  });

  it('count a Sentry once, with the containers inside it', () => {
    const inside = { insideSandboxProcess: true };
    const stats = toPodSandboxStats(
      parts({}, [
        [{}, inside],
        [own, {}],
      ]),
    );
    assert.equal(stats.linux?.cpu?.usageCoreNanoSeconds?.value, 7n);
  });

  it('have a default interface wherever they have a network', () => {
    const networkOf = (interfaces: readonly object[]) =>
      toPodSandboxStats(parts({ network: { sampledAtNs: 1n, interfaces: [...interfaces] } }, []))
        .linux?.network;
    const two = [{ name: 'net1' }, { name: 'eth0', rxBytes: 5n }];
    assert.equal(networkOf(two)?.defaultInterface?.rxBytes?.value, 5n);
    assert.equal(networkOf(two)?.interfaces.length, 2);
    assert.equal(networkOf([{ name: 'other' }])?.defaultInterface?.name, 'other');
    assert.equal(networkOf([]), undefined);
  });
});
