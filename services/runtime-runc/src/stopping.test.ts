// What the clients of sessions are told when the worker is stopped under them: that it was, and no end
// of what goes on in the pod.

import assert from 'node:assert/strict';
import { type AddressInfo, createServer } from 'node:net';
import { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { AttachRequest, ExecRequest, type Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { dialSession } from '@cribus/runtime-worker/session-dialler.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

const ECHO = 'while read line; do echo "got $line"; done';
const STREAMS = { stdin: true, stdout: true, stderr: true };

describe('a worker that is stopped', () => {
  let fixture: WorkerFixture;
  let containerId: string;
  let closeServer: () => void = () => undefined;

  beforeEach(async function () {
    this.timeout(60_000);
    fixture = await openWorkerFixture({
      ...{ handler: 'runc', family: 'runc', engine: 'runc', probe: probeRunc },
    });
    containerId = await fixture.create('echo', { command: ['sh', '-c', ECHO], stdin: true });
    await fixture.verbs['start-container']({ containerId }, fixture.context());
  });
  afterEach(async () => {
    closeServer();
    await fixture.restart();
    await fixture.close();
  });

  const attach = () =>
    fixture.verbs.attach(AttachRequest.fromPartial({ containerId, ...STREAMS }), fixture.context());
  const exec = () =>
    fixture.verbs.exec(
      ExecRequest.fromPartial({ containerId, cmd: ['sh', '-c', ECHO], ...STREAMS }),
      fixture.context(),
    );
  /** To a server of this process, which says more later. */
  const forward = async () => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (line: Buffer) => socket.write(`got ${line}`));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    closeServer = () => server.close();
    const sandbox = SandboxRecord.fromPartial({ ...fixture.sandbox, namespaces: {} });
    return await fixture.verbs['port-forward']({ sandbox, port }, fixture.context());
  };
  const SESSIONS: Readonly<Record<string, () => Promise<Session>>> = {
    ...{ attach, exec, 'a forwarded connection': forward },
  };

  for (const [kind, open] of Object.entries(SESSIONS)) {
    it(`tells its client of ${kind} so`, async () => {
      const session = dialSession(await open());
      session.send(FRAME.stdin, 'one\n');
      await session.until('got one\n');
      fixture.stop();
      await assert.rejects(session.ended, {
        kind: 'unavailable',
        message: /its worker is being stopped/,
      });
      const pid = fixture.worker.store.get(containerId)?.process?.pid ?? 0;
      assert.ok(process.kill(pid, 0), 'the container runs on');
    });
  }
});
