// Commands that are killed, beside processes of others that bear the same mark.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { spawn } from '@cribus/host/spawn.ts';
import { eventually, processesWith } from '@cribus/runtime-worker/suite-steps.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, before, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

for (const engine of ['runc', 'crun']) {
  describe(`marks on commands under ${engine}`, () => {
    let fixture: WorkerFixture;
    let id = '';

    before(async function () {
      this.timeout(60_000);
      fixture = await openWorkerFixture({
        ...{ handler: engine, family: 'runc', engine, probe: probeRunc },
      });
      id = await fixture.create('shell', { command: ['sleep', '1000'] });
      await fixture.verbs['start-container']({ containerId: id }, fixture.context());
    });
    after(() => fixture.close());

    it('cost nobody outside of the container its life who bears the same one', async () => {
      const seconds = `6666${process.pid}`;
      const script = `(setsid sleep ${seconds} &); exec sleep ${seconds}`;
      const killed = fixture.exec(id, ['sh', '-c', script], 1);
      killed.catch(() => undefined);
      await eventually('the command runs', async () => processesWith(seconds).length > 1);
      const [pid] = processesWith(`sleep ${seconds}`);
      const slackNs = Number(readFileSync(`/proc/${pid}/timerslack_ns`, 'latin1'));
      // Another worker may have given the same mark to a command of its own meanwhile.
      const other = spawn({ command: 'sleep', args: ['60'], mark: { slackNs, since: 0n } });
      await assert.rejects(killed, { kind: 'timeout' });
      assert.deepEqual(processesWith(seconds), []);
      other.kill('SIGTERM');
      assert.equal((await other.exited).signal, constants.signals.SIGTERM);
    });
  });
}
