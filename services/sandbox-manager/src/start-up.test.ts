// What a start does with a record, by its phase and the state of the host.

import assert from 'node:assert/strict';
import { SandboxPhase, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { describe, it } from 'mocha';
import { judge } from './reservations.ts';
import { type FoundHost, planRepair } from './start-up.ts';

const HOST: FoundHost = { rebooted: false, isPin: () => true, processAlive: () => true };
const record = (fields: object) =>
  SandboxRecord.fromPartial({
    id: 'a',
    phase: SandboxPhase.READY,
    namespaces: { net: '/pins/net', uts: '/pins/uts' },
    ...fields,
  });

describe('sandbox repair', () => {
  it('adopts what lives, undoes what was half made, finishes what was begun', () => {
    const process = { pid: 7, startTimeTicks: 1n, bootId: 'b' };
    const rows: [object, Partial<FoundHost>, string, RegExp?][] = [
      [{}, {}, 'adopt'],
      [{ process }, {}, 'adopt'],
      [{ phase: SandboxPhase.CREATING }, {}, 'remove'],
      [{ phase: SandboxPhase.REMOVING }, { rebooted: true }, 'remove'],
      [{ phase: SandboxPhase.STOPPING }, {}, 'stop'],
      [{ phase: SandboxPhase.NOTREADY }, { isPin: () => false }, 'adopt'],
      [{}, { rebooted: true }, 'mark', /restarted/],
      [{}, { isPin: (path) => path !== '/pins/net' }, 'mark', /gone: net$/],
      [{ namespaces: { net: '' } }, { isPin: () => false }, 'adopt'],
      [{ process }, { processAlive: () => false }, 'mark', /process ended/],
    ];
    for (const [fields, host, kind, reason] of rows) {
      const repair = planRepair(record(fields), { ...HOST, ...host });
      assert.equal(repair.kind, kind, JSON.stringify(Object.keys(fields)));
      if (reason !== undefined) assert.match(repair.kind === 'mark' ? repair.reason : '', reason);
    }
  });

  it('answers a finished creation again only to its own request, for ten minutes', () => {
    const operation = { operationId: 'o', requestHash: 'h', finishedAtNs: 1_000n };
    const made = record({ operation });
    const lost = { operationId: 'new', requestHash: 'h' };
    assert.equal(judge(made, { operationId: 'o', requestHash: 'other' }, 2n ** 60n), made);
    assert.equal(judge(made, lost, 2_000n), made);
    const refused: [SandboxRecord, object, bigint][] = [
      [made, { operationId: 'new', requestHash: 'other' }, 2_000n],
      [made, lost, 600_000_001_000n],
      [record({ operation: { ...operation, acknowledged: true } }), lost, 2_000n],
      [record({ operation, phase: SandboxPhase.NOTREADY }), lost, 2_000n],
      [record({}), lost, 2_000n],
    ];
    for (const [existing, request, nowNs] of refused) {
      const asked = request as { operationId: string; requestHash: string };
      assert.throws(() => judge(existing, asked, nowNs), /sandbox a has this metadata/);
    }
    assert.throws(
      () => judge(record({ operation, phase: SandboxPhase.REMOVING }), lost, 2_000n),
      /being removed/,
    );
  });
});
