import assert from 'node:assert/strict';
import { ExecSyncResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { ANSWER_BYTES_MAX, collectSession } from './collect-session.ts';
import { type FakeWorker, startFakeWorker } from './testing/fake-worker.ts';

const MIB = 1024 * 1024;

describe('the collected output of a session', () => {
  let worker: FakeWorker;
  beforeEach(async () => {
    worker = await startFakeWorker();
  });
  afterEach(() => worker.close());

  for (const [what, sentMib, keptMib] of [
    ['both streams', [16, 16], [7, 7]],
    ['stdout alone', [17, 0], [15, 0]],
    ['one long stream beside a short one', [1, 16], [1, 14]],
  ] as const) {
    it(`is cut so that the answer has room for its framing: ${what}`, async () => {
      const chunk = Buffer.alloc(MIB, 'x');
      const session = worker.session((dialled) => {
        for (let turn = 0; turn < sentMib[0]; turn += 1) dialled.send(FRAME.stdout, chunk);
        for (let turn = 0; turn < sentMib[1]; turn += 1) dialled.send(FRAME.stderr, chunk);
        dialled.exit(-2);
      });
      const { signal } = new AbortController();
      const output = await collectSession({ session, signal, what: 'exec' });
      assert.equal(output.exitCode, -2);
      const { stdout, stderr, droppedBytes } = output;
      assert.deepEqual(
        [stdout, stderr].map(({ length }) => Math.floor(length / MIB)),
        keptMib,
      );
      assert.equal(
        stdout.length + stderr.length + droppedBytes,
        (sentMib[0] + sentMib[1]) * MIB,
        'what is dropped is counted',
      );
      const answer = ExecSyncResponse.encode(ExecSyncResponse.fromPartial(output)).finish();
      assert.ok(answer.length < ANSWER_BYTES_MAX, `${answer.length} bytes`);
      assert.ok(answer.length > ANSWER_BYTES_MAX - 2048, `${answer.length} bytes`);
    });
  }
});
