import assert from 'node:assert/strict';
import { ContainerPhase as P } from '@cribus/contracts/gen/node/v1/records.ts';
import { describe, it } from 'mocha';
import { mayMove, phaseName } from './phases.ts';

describe("a container's phases", () => {
  it('go forward only', () => {
    for (const [from, to] of [
      [P.CREATING, P.CREATED],
      [P.CREATED, P.RUNNING],
      [P.CREATED, P.EXITED],
      [P.RUNNING, P.EXITED],
      [P.EXITED, P.REMOVING],
      [P.UNKNOWN, P.REMOVING],
      [P.RUNNING, P.RUNNING],
    ] as const) {
      assert.ok(mayMove(from, to), `${phaseName(from)} to ${phaseName(to)}`);
    }
    for (const [from, to] of [
      [P.EXITED, P.RUNNING],
      [P.EXITED, P.CREATED],
      [P.REMOVING, P.EXITED],
      [P.CREATING, P.RUNNING],
      [P.RUNNING, P.CREATED],
    ] as const) {
      assert.ok(!mayMove(from, to), `${phaseName(from)} to ${phaseName(to)}`);
    }
  });
});
