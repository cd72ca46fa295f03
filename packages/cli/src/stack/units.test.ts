import assert from 'node:assert/strict';
import { isFailure } from '@cribus/contracts/failure.ts';
import { describe, it } from 'mocha';
import { PART_NAMES } from './services.ts';
import { type AskSystemctl, parseUnits, requireUnitsStopped, unitOf } from './units.ts';

/** What systemctl is-active says of all units in turn: each text is one answer, the last one stays. */
function saying(...answers: readonly Readonly<Record<string, string>>[]): AskSystemctl {
  let turn = 0;
  return async ([verb, ...units]) => {
    assert.equal(verb, 'is-active');
    const answer = answers[Math.min(turn, answers.length - 1)] ?? {};
    turn += 1;
    return `${units.map((unit) => answer[unit] ?? 'inactive').join('\n')}\n`;
  };
}

describe('the units of a stack', () => {
  it('are named after its parts', () => {
    assert.deepEqual(PART_NAMES.map(unitOf), [
      'cribus-nats',
      'cribus-redis',
      'cribus-image-service',
      'cribus-sandbox-manager',
      'cribus-runtime-runc',
      'cribus-runtime-gvisor',
      'cribus-gateway',
    ]);
  });

  it('keep others away while one of them runs, starts or waits for a connection', async () => {
    const running: readonly Readonly<Record<string, string>>[] = [
      { 'cribus.target': 'active' },
      { 'cribus-gateway.socket': 'active' },
      { 'cribus-nats.service': 'active', 'cribus-gateway.service': 'failed' },
      { 'cribus-runtime-runc.service': 'activating' },
      { 'cribus-image-service.service': 'reloading' },
      { 'cribus-prepare.service': 'activating' },
      { 'cribus-gateway.service': 'deactivating', 'cribus-redis.service': 'active' },
    ];
    for (const states of running) {
      await assert.rejects(
        requireUnitsStopped(saying(states)),
        (error) => isFailure(error, 'wrong_state') && /systemctl stop cribus/.test(error.message),
        JSON.stringify(states),
      );
    }
  });

  it('keep nobody away once they are stopped, whatever is left of preparing', async () => {
    await requireUnitsStopped(saying({}));
    await requireUnitsStopped(saying({ 'cribus-prepare.service': 'active' }));
    await requireUnitsStopped(saying({ 'cribus-gateway.service': 'failed' }));
    await requireUnitsStopped(async () => '');
  });

  it('are waited for while they stop', async () => {
    const stopping = { 'cribus-gateway.service': 'deactivating' };
    await requireUnitsStopped(saying(stopping, stopping, {}));
    await assert.rejects(requireUnitsStopped(saying(stopping, { 'cribus.target': 'activating' })));
  });

  it('that have a process are told with its number and its start', () => {
    const text = [
      'MainPID=71\nExecMainStartTimestamp=@1764378767\nId=cribus-gateway.service\n',
      'MainPID=0\nExecMainStartTimestamp=@1764378700\nId=cribus-nats.service\n',
      'MainPID=72\nExecMainStartTimestamp=@1764378768\nId=somebody.service\n',
      'MainPID=0\nExecMainStartTimestamp=\nId=cribus-redis.service\n',
    ].join('\n');
    assert.deepEqual(
      [...parseUnits(text)],
      [['cri-gateway', { pid: 71, startedAtMs: 1_764_378_767_000 }]],
    );
    assert.equal(parseUnits('').size, 0);
  });
});
