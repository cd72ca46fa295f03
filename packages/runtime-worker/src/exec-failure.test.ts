// What a caller is told whose command met a container that was just ending.

import assert from 'node:assert/strict';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { identify } from '@cribus/host/processes.ts';
import { describe, it } from 'mocha';
import { execFailure } from './exec-failure.ts';

describe('the failure of an executed command', () => {
  const failure = new Failure('invalid_argument', 'engine exec: failed to open /proc/7/ns/ipc');
  const own = identify(process.pid);
  const recordOf = (startTimeTicks: bigint) =>
    ContainerRecord.fromPartial({ id: 'c', process: { ...own, startTimeTicks } });

  it('is what the engine said while the container runs', () => {
    assert.ok(own !== undefined);
    assert.equal(execFailure(recordOf(own.startTimeTicks), failure), failure);
    assert.equal(execFailure(ContainerRecord.fromPartial({ id: 'c' }), failure), failure);
  });

  it('is the end of the container once its process is gone, but for a time-out and what is no Failure', () => {
    assert.ok(own !== undefined);
    const ended = recordOf(own.startTimeTicks + 1n);
    const told = execFailure(ended, failure);
    assert.ok(told instanceof Failure && told.kind === 'wrong_state' && told.cause === failure);
    const late = new Failure('timeout', 'killed');
    assert.equal(execFailure(ended, late), late);
    const bug = new TypeError('a bug');
    assert.equal(execFailure(ended, bug), bug);
  });
});
