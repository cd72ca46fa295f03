import assert from 'node:assert/strict';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import type { ClientConnection, ClientStream } from './client-stream.ts';
import { createInbox, createThrottle } from './inbox.ts';
import { joinSession } from './join-session.ts';
import { deferred } from './testing/deferred.ts';
import { type FakeSession, type FakeWorker, startFakeWorker } from './testing/fake-worker.ts';

describe('a joined session', () => {
  let worker: FakeWorker;
  beforeEach(async () => {
    worker = await startFakeWorker();
  });
  afterEach(() => worker.close());

  const leaving = new AbortController();
  const connection: ClientConnection = {
    closed: leaving.signal,
    onDrain: () => () => undefined,
    isHolding: () => false,
    close: () => undefined,
  };

  /** A stream with an inbox, on a connection of which is known whether it is read. */
  function stream() {
    const reading = { isOn: true };
    const throttle = createThrottle({
      pause: () => {
        reading.isOn = false;
      },
      resume: () => {
        reading.isOn = true;
      },
    });
    const inbox = createInbox(throttle);
    const data: ClientStream = {
      write: () => true,
      end: () => undefined,
      reset: () => inbox.discard(),
      receive: inbox.receive,
      pause: inbox.pause,
      resume: inbox.resume,
    };
    return { inbox, data, reading };
  }

  it('that ends while its input is held back lets the connection be read again, and drops the input', async () => {
    const dialled = deferred<FakeSession>();
    const { inbox, data, reading } = stream();
    let taken = 0;
    const outcome = joinSession({
      session: worker.session((session) => {
        session.socket.pause();
        dialled.resolve(session);
      }),
      what: 'port 80',
      connection,
      stdin: data,
      stdout: data,
      count: (_direction, bytes) => {
        taken += bytes;
      },
    });
    const session = await dialled.promise;
    const chunk = Buffer.alloc(64 * 1024);
    while (reading.isOn) {
      inbox.push(chunk);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const takenBefore = taken;
    session.send(FRAME.stdout, '413');
    session.send(FRAME.stdoutEnd, '');
    session.exit(0);
    assert.equal((await outcome).kind, 'exit');
    assert.ok(reading.isOn, 'the connection is read');
    for (let turn = 0; turn < 8; turn += 1) inbox.push(chunk);
    await systemClock.sleep(10);
    assert.ok(reading.isOn, 'what still comes holds nothing up');
    assert.equal(taken, takenBefore + '413'.length);
  });
});
