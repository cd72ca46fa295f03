// Connecting as somebody: nkey seeds, permissions, credentials in the URL, and giving up.

import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { nkeys } from '@nats-io/transport-node';
import { describe, it } from 'mocha';
import { connectBus } from './bus.ts';
import { createTestLog, createTestService } from './testing/fake-service.ts';
import { createNatsServer } from './testing/servers.ts';

describe('bus', () => {
  it('connects with its nkey and answers with its private inbox and allow_responses', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'chassis-keys-'));
    const users = [];
    for (const name of ['cri-gateway', 'runtime-runc']) {
      const pair = nkeys.createUser();
      const file = join(directory, `${name}.nk`);
      await writeFile(file, `${Buffer.from(pair.getSeed()).toString()}\n`);
      await chmod(file, 0o600);
      const own = '"cribus.node.event.*", "$SRV.>"';
      const allowed = name === 'cri-gateway' ? `"cribus.node.runtime.*.*", ${own}` : own;
      users.push(`{ nkey: ${pair.getPublicKey()}, permissions: {
        publish: { allow: [${allowed}] }
        subscribe: { allow: ["_INBOX_${name}.>", "cribus.node.runtime.*.*", ${own}] }
        allow_responses: true } }`);
    }
    const nats = await createNatsServer(`authorization { users: [${users.join(', ')}] }`);
    await nats.start();
    const common = { natsUrl: nats.url, credentialsDirectory: directory };
    const worker = await createTestService({ ...common, name: 'runtime-runc' });
    const gateway = await createTestService({ ...common, name: 'cri-gateway' });
    try {
      let asked = 0;
      const waits: number[] = [];
      worker.bus.serve('cribus.node.runtime.runc.describe', (message) => {
        asked += 1;
        waits.push(Number(message.header('Cribus-Deadline-Ms')));
        // The first attempt stays unanswered, as if its answer had been lost.
        if (asked === 2) message.respond(new Uint8Array());
      });
      await systemClock.sleep(50);
      const { result } = await gateway.bus.ask(
        'describe',
        { id: 'x' },
        {
          owner: runtimeOwner('runc'),
          signal: systemClock.timeout(8_000),
          requestId: 'r',
          deadlineAtMs: systemClock.monotonicMs() + 8_000,
        },
      );
      const [first = 0, second = 0] = waits;
      assert.ok(first > 7_000 && first <= 8_000 && second > 0 && second < first, waits.join());
      assert.deepEqual(result.info, {});
      assert.equal(asked, 2);
      // A refused subject is said in the log, and ends nothing.
      worker.bus.serve('cribus.node.image-service.pull-image', () => {});
      await systemClock.sleep(300);
      assert.match(JSON.stringify(worker.lines), /[Pp]ermissions? [Vv]iolation/);
      assert.equal(worker.bus.connected(), true);
    } finally {
      await gateway.stop();
      await worker.stop();
      await nats.close();
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('uses the credentials in the URL', async () => {
    const nats = await createNatsServer('authorization { user: "me", password: "p@ss" }');
    await nats.start();
    const url = nats.url.replace('nats://', 'nats://me:p%40ss@');
    const service = await createTestService({ natsUrl: url });
    assert.equal(service.bus.connected(), true);
    await service.stop();
    await nats.close();
  });

  it('stops trying when its signal aborts', async () => {
    const { log, lines } = createTestLog();
    const ending = new AbortController();
    const connecting = connectBus({
      url: 'nats://127.0.0.1:1',
      node: 'node',
      service: 'cri-gateway',
      credentialsDirectory: '',
      log,
      signal: ending.signal,
    });
    await systemClock.sleep(700);
    ending.abort(new Error('enough'));
    await assert.rejects(connecting, /enough/);
    assert.equal(lines.length, 1);
  });
});
