import assert from 'node:assert/strict';
import { ContainerRecord, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { describe, it } from 'mocha';
import { namesOf } from './names.ts';
import type { AnyRecord, RecordStore } from './records.ts';

const metadata = { name: 'web', namespace: 'shop', uid: 'u', attempt: 0 };
const sandbox = SandboxRecord.fromPartial({ id: 's1', config: { metadata } });
const ofPod = { podName: 'web', podNamespace: 'shop', sandboxId: 's1' };
const sentry = ContainerRecord.fromPartial({ id: 's1', sandboxProcess: true, ...ofPod });
const container = ContainerRecord.fromPartial({
  ...{ id: 'c1', config: { metadata: { name: 'main', attempt: 0 } } },
  ...ofPod,
});

function namesWith(records: readonly AnyRecord[], request: unknown) {
  const store = { get: (id: string) => records.find((record) => record.id === id) };
  return namesOf({ request, changed: [], stores: [store as RecordStore<AnyRecord>] });
}

describe('the names in a log line', () => {
  const pod = { sandbox: 's1', pod: 'web', namespace: 'shop' };

  it('are the pod of a sandbox', () => {
    assert.deepEqual(namesWith([sandbox], { podSandboxId: 's1' }), pod);
  });

  it('are the container and its pod, of which only the container is in a store', () => {
    const names = namesWith([container], { containerId: 'c1' });
    assert.deepEqual(names, { ...pod, container_id: 'c1', container: 'main' });
  });

  it('are not of a container where the record is of the process of a sandbox', () => {
    assert.deepEqual(namesWith([sentry], { podSandboxId: 's1' }), pod);
    const create = {
      podSandboxId: 's1',
      config: { metadata: { name: 'main' } },
      sandboxConfig: { metadata },
    };
    assert.deepEqual(namesWith([sentry], create), { ...pod, container: 'main' });
  });
});
