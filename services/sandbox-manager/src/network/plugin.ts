// One run of one CNI plugin: environment and configuration in, result or error out (CNI
// specification 1.0, section 2).

import { Failure, type FailureKind } from '@cribus/contracts/failure.ts';
import { isObject } from '@cribus/contracts/network-list.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { run } from '@cribus/host/spawn.ts';
import { hostFailure } from '../host-failure.ts';

export interface PluginRun {
  readonly command: 'ADD' | 'DEL';
  /** The plugin's binary. */
  readonly path: string;
  readonly type: string;
  /** What it reads on stdin. */
  readonly config: object;
  readonly containerId: string;
  /** Empty when the namespace is gone, which DEL must bear. */
  readonly netns: string;
  readonly interfaceName: string;
  readonly args: string;
  readonly binDirectories: readonly string[];
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Plugins call iptables and ip, which a service's own PATH may lack. */
const PLUGIN_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const STDERR_CHARS_MAX = 1024;

/**
 * Runs a plugin to its end and parses what it printed; undefined where it printed nothing. Raises
 * its error with stage `CNI ADD (bridge)`, timeout when it takes too long; it is killed then, and
 * when the signal aborts.
 */
export async function runPlugin(options: PluginRun): Promise<unknown> {
  const stage = `CNI ${options.command} (${options.type})`;
  const timeout = options.clock.timeout(options.timeoutMs);
  const result = await withJoinedSignal([options.signal, timeout], (signal) =>
    run({
      command: options.path,
      args: [],
      env: {
        PATH: PLUGIN_PATH,
        CNI_COMMAND: options.command,
        CNI_CONTAINERID: options.containerId,
        CNI_NETNS: options.netns,
        CNI_IFNAME: options.interfaceName,
        CNI_ARGS: options.args,
        CNI_PATH: options.binDirectories.join(':'),
      },
      stdin: Buffer.from(JSON.stringify(options.config)),
      signal,
    }),
  ).catch((error: unknown) => {
    if (!timeout.aborted || options.signal.aborted) {
      throw hostFailure(error, { stage, sandboxId: options.containerId });
    }
    throw new Failure(
      'timeout',
      `sandbox ${options.containerId}: no end within ${options.timeoutMs / 1000} s`,
      { stage, cause: error },
    );
  });
  if (result.exitCode === 0) return parseOutput(result.stdout.toString('utf8'), options, stage);
  const how = result.exitCode === undefined ? `signal ${result.signal}` : `exit ${result.exitCode}`;
  throw pluginFailure({
    stage,
    containerId: options.containerId,
    how,
    stdout: result.stdout.toString('utf8'),
    stderr: result.stderr.toString('utf8'),
  });
}

function parseOutput(stdout: string, options: PluginRun, stage: string): unknown {
  if (stdout.trim() === '') return undefined;
  try {
    return JSON.parse(stdout);
  } catch (error) {
    // A DEL has no result; what a plugin chats on stdout there is not worth a stuck pod.
    if (options.command === 'DEL') return undefined;
    throw new Failure(
      'wrong_state',
      `sandbox ${options.containerId}: the plugin's result is not JSON`,
      { stage, cause: error },
    );
  }
}

/**
 * Well-known codes (CNI specification, "Error"): 11 asks to try again later; 50 and 51 say that
 * the plugin is not available, or hardly.
 */
const RETRYABLE_CODES = [11, 50, 51];

/** The plugin's own error (code, msg, details), or the end of its stderr where it printed none. */
export function pluginFailure(exit: {
  readonly stage: string;
  readonly containerId: string;
  readonly how: string;
  readonly stdout: string;
  readonly stderr: string;
}): Failure {
  const details = { stage: exit.stage };
  let error: unknown;
  try {
    error = JSON.parse(exit.stdout);
  } catch {
    error = undefined;
  }
  if (!isObject(error) || typeof error['msg'] !== 'string') {
    const text = exit.stderr.trim().slice(-STDERR_CHARS_MAX);
    const said = text === '' ? 'and said nothing' : `and said: ${text}`;
    const message = `sandbox ${exit.containerId}: the plugin ended with ${exit.how} ${said}`;
    return new Failure('wrong_state', message, details);
  }
  const code = typeof error['code'] === 'number' ? error['code'] : 0;
  const kind: FailureKind = RETRYABLE_CODES.includes(code) ? 'unavailable' : 'wrong_state';
  const more =
    typeof error['details'] === 'string' && error['details'] !== '' ? `; ${error['details']}` : '';
  const message = `sandbox ${exit.containerId}: ${error['msg']} (code ${code})${more}`;
  return new Failure(kind, message, details);
}
