// Whether this host can checkpoint and restore: criu must be there, its own check must be content
// with the kernel, and the engine must have been built to use it.

import type { Clock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { joinSignals } from '@cribus/host/joined-signals.ts';
import { resolveCommand, run } from '@cribus/host/spawn.ts';

export interface CheckpointAbility {
  readonly possible: boolean;
  /** `criu 3.17.1`, or a sentence that says what is missing. */
  readonly words: string;
}

/** It takes a tenth of a second; a machine that is just booting may take a hundred times that. */
const CHECK_BUDGET_MS = 30_000;
const REASON_CHARACTERS_MAX = 300;

/** Asks criu itself; `engineLacks` says why the engine can't use it, where it can't. */
export async function probeCheckpoint(options: {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly engineLacks?: string | undefined;
}): Promise<CheckpointAbility> {
  let criu: string;
  try {
    criu = resolveCommand('criu');
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return no('criu is not installed on this host');
  }
  const limit = options.clock.timeout(CHECK_BUDGET_MS);
  const { signal, release } = joinSignals([options.signal, limit]);
  try {
    const version = await run({ command: criu, args: ['--version'], signal });
    const words = `criu ${versionOf(version.stdout.toString('utf8'))}`;
    if (version.exitCode !== 0) return no(`${criu} does not run: ${reasonIn(version.stderr)}`);
    if (options.engineLacks !== undefined) return no(`${options.engineLacks} (${words} is there)`);
    const check = await run({ command: criu, args: ['check'], signal });
    if (check.exitCode === 0) return { possible: true, words };
    const said = reasonIn(Buffer.concat([check.stdout, check.stderr]));
    return no(`${words} can't work with this kernel: ${said}`);
  } catch (error) {
    if (options.signal.aborted) throw error;
    return no(`${criu} gave no answer: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    release();
  }
}

function no(words: string): CheckpointAbility {
  return { possible: false, words };
}

/** As in `Version: 3.17.1`. */
export function versionOf(text: string): string {
  return /^Version:\s*(\S+)/m.exec(text)?.[1] ?? 'of unknown version';
}

/** criu's lines of errors without their place in its source, on one line. */
export function reasonIn(output: Buffer): string {
  const lines = output.toString('utf8').split('\n');
  const errors = lines.filter((line) => /\b(?:Error|error while loading)\b/.test(line));
  const found = errors.length > 0 ? errors : lines.filter((line) => line.trim() !== '');
  const words = found.map((line) => line.replace(/^.*?Error \([^)]*\):\s*/, '').trim());
  return [...new Set(words)].join('; ').slice(0, REASON_CHARACTERS_MAX) || 'it does not say why';
}
