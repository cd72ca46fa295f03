// Whom the end of a command that was executed costs its life, and whom not.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { createMark } from '@cribus/host/process-marks.ts';
import { spawn } from '@cribus/host/spawn.ts';
import { describe, it } from 'mocha';
import type { Launched } from './exec-launch.ts';
import { execFiles } from './exec-order.ts';
import { killExec } from './kill-exec.ts';
import type { Worker } from './worker.ts';

describe('the end of a command', () => {
  it('leaves a process outside of the container alone that has its pid by now', async () => {
    const bundle = mkdtempSync(join(tmpdir(), 'cribus-kill-'));
    const files = { ...execFiles(bundle, 'exec-1'), pid: join(bundle, 'pid') };
    const other = spawn({ command: 'sleep', args: ['60'] });
    writeFileSync(files.pid, String(other.pid));
    const over = Promise.resolve({ exitCode: 0, signal: undefined });
    const launched = {
      mark: createMark(),
      engine: { pid: 0, exited: over, kill: () => undefined },
      exited: Promise.resolve(0),
    } as unknown as Launched;
    const worker = {
      service: { clock: systemClock },
      driver: { signalBy: 'process' },
    } as unknown as Worker;
    try {
      const record = ContainerRecord.fromPartial({ id: 'ab'.repeat(32) });
      await killExec(worker, { record, files, launched });
      other.kill('SIGTERM');
      assert.equal((await other.exited).signal, constants.signals.SIGTERM);
    } finally {
      rmSync(bundle, { recursive: true });
    }
  });
});
