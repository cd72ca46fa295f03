import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { parseConfig } from '@cribus/chassis/config.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { type GivenServers, requireGivenServers } from './given-servers.ts';

describe('servers that are given', () => {
  let server: Server;
  let port = 0;
  const listen = (wanted: number) =>
    new Promise<void>((done) => server.listen(wanted, '127.0.0.1', done));
  const close = () => new Promise((done) => server.close(done));

  beforeEach(async () => {
    server = createServer((socket) => socket.end('INFO {"version":"2"}\r\n'));
    await listen(0);
    port = (server.address() as { port: number }).port;
  });
  afterEach(close);

  const given = (more: Partial<GivenServers>): GivenServers => ({
    config: parseConfig(`[nats]\nurl = "nats://user:secret@127.0.0.1:${port}"`, { file: 'x' }),
    own: { nats: false, redis: true },
    budgetMs: 300,
    signal: systemClock.timeout(10_000),
    ...more,
  });

  it('are taken as soon as they answer, and ours are not asked', async () => {
    await requireGivenServers(given({}));
    await close();
    await requireGivenServers(given({ own: { nats: true, redis: true } }));
  });

  it('are refused without their secret when they are silent for the budget', async () => {
    await close();
    await assert.rejects(
      requireGivenServers(given({})),
      (error) =>
        isFailure(error, 'unavailable') &&
        error.message.startsWith(`--nats nats://127.0.0.1:${port}: no server answers`),
    );
  });

  it('are waited for beyond the budget where somebody is told, once', async () => {
    await close();
    const told: string[] = [];
    const waiting = requireGivenServers(given({ onWait: (sentence) => told.push(sentence) }));
    await systemClock.sleep(1_000);
    await listen(port);
    await waiting;
    assert.equal(told.length, 1);
    assert.doesNotMatch(told[0] ?? '', /secret/);
  });
});
