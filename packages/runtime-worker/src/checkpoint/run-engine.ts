// Operations of the engine that only checkpoints need, and what criu says when they fail.

import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { run } from '@cribus/host/spawn.ts';
import { readableOutput } from '../engine-binary.ts';
import type { Worker } from '../worker.ts';
import { reasonIn } from './criu.ts';

/** Raises wrong_state with the engine's words, and with those of criu's log where it left one. */
export async function runEngine(
  worker: Worker,
  operation: 'pause' | 'resume' | 'checkpoint',
  options: {
    readonly args: readonly string[];
    readonly signal: AbortSignal;
    /** Where criu writes its log. */
    readonly workDirectory?: string;
  },
): Promise<void> {
  const { engine, driver, service } = worker;
  const front = engine.argv('state', []).slice(0, -1);
  const result = await service.metrics.timed('engine', `${driver.family} ${operation}`, () =>
    run({
      command: engine.command,
      args: [...front, operation, ...options.args],
      signal: options.signal,
    }),
  );
  if (result.exitCode === 0) return;
  const said = readableOutput(result.stderr.toString('utf8')) || `code ${result.exitCode}`;
  const log = await criuLog(options.workDirectory);
  throw new Failure('wrong_state', `${said}${log === '' ? '' : `; criu: ${log}`}`, {
    stage: `engine ${operation}`,
  });
}

async function criuLog(directory: string | undefined): Promise<string> {
  if (directory === undefined) return '';
  const text = await readFileIfExists(join(directory, 'dump.log'));
  return text === undefined || text.length === 0 ? '' : reasonIn(text);
}
