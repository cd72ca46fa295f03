// A Sentry that hangs, as one whose host has no processor left for it.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ExecRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { dialSession } from '@cribus/runtime-worker/session-dialler.ts';
import { eventually, processesWith } from '@cribus/runtime-worker/suite-steps.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, before, describe, it } from 'mocha';
import { probeGvisor } from './driver.ts';

describe('a Sentry that hangs', () => {
  let fixture: WorkerFixture;
  let id = '';
  let sentry = 0;

  before(async function () {
    this.timeout(60_000);
    fixture = await openWorkerFixture({
      ...{ handler: 'gvisor', family: 'gvisor', engine: 'runsc', probe: probeGvisor },
    });
    const answer = await fixture.verbs['start-sandbox'](
      { sandbox: fixture.sandbox },
      fixture.context(),
    );
    sentry = answer.process?.pid ?? 0;
    id = await fixture.create('shell', { command: ['sleep', '1000'] });
    await fixture.verbs['start-container']({ containerId: id }, fixture.context());
  });
  after(() => fixture.close());

  /** Engines that execute a command in the container, and their files. */
  const left = () => [
    ...processesWith('exec --process').filter((pid) => processesWith(id).includes(pid)),
    ...readdirSync(join(fixture.worker.paths.run, id)).filter((name) => name.startsWith('exec-')),
  ];

  it('leaves no engine of a command that ran when it began to hang, whose time-out is told', async function () {
    this.timeout(60_000);
    const timed = fixture.exec(id, ['sleep', '1000'], 2);
    timed.catch(() => undefined);
    const request = { containerId: id, cmd: ['sh', '-c', 'echo ready; sleep 1000'], stdout: true };
    const vanishing = dialSession(
      await fixture.verbs.exec(ExecRequest.fromPartial(request), fixture.context()),
    );
    await vanishing.until('ready');
    process.kill(sentry, 'SIGSTOP');
    try {
      vanishing.socket.destroy();
      await assert.rejects(timed, { kind: 'timeout', message: /was killed after 2000 ms/ });
      await eventually('no engine is left', async () => left().length === 0);
    } finally {
      process.kill(sentry, 'SIGCONT');
    }
    assert.equal((await fixture.exec(id, ['echo', 'well'])).stdout, 'well\n');
  });
});
