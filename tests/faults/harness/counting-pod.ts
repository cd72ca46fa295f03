// A pod whose container counts on its stdout, so that a lost, doubled or torn line shows.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import {
  ContainerState,
  ContainerStatusRequest,
  PodSandboxState,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type RunningPod, runPod } from '../../e2e/harness/pods.ts';
import { eventually, readLog, type Stack } from '../../e2e/harness/stack.ts';

/** A number every 5 ms; without a process for each pause, which would take longer than that. */
const COUNTER =
  'mkfifo /tmp/tick; exec 3<>/tmp/tick; i=0; ' +
  'while :; do i=$((i+1)); echo $i; read -t 0.005 x <&3; done';

export interface CountingPod extends RunningPod {
  readonly handler: string;
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: another process with this pid has another. */
  readonly startTime: string;
}

export const SHOWN_STATES = {
  sandbox: PodSandboxState.SANDBOX_READY,
  container: ContainerState.CONTAINER_RUNNING,
} as const;

/** Runs it, and waits until it counts. */
export async function startCountingPod(
  stack: Stack,
  options: { readonly image: string; readonly handler: string },
): Promise<CountingPod> {
  const pod = await runPod(stack, { ...options, script: COUNTER });
  await eventually(
    'the counter counts',
    async () => (await readLog(pod.logPath)).length > 10,
    20_000,
  );
  const pid = await pidOfContainer(stack, pod.containerId);
  return { ...pod, handler: options.handler, pid, startTime: await startTimeOf(pid) };
}

/** The pid that a verbose status tells. */
export async function pidOfContainer(stack: Stack, containerId: string): Promise<number> {
  const { info } = await stack.cri.call(
    'containerStatus',
    ContainerStatusRequest.fromPartial({ containerId, verbose: true }),
  );
  const { pid } = JSON.parse(info['info'] ?? '{}') as { pid?: number };
  assert.ok(pid !== undefined && pid > 1, `info has no pid: ${JSON.stringify(info)}`);
  return pid;
}

export async function startTimeOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

/** Same process, and it is still the one that the worker tells of. */
export async function assertSameProcess(stack: Stack, pod: CountingPod): Promise<void> {
  assert.equal(await pidOfContainer(stack, pod.containerId), pod.pid, `${pod.handler}: pid`);
  assert.equal(await startTimeOf(pod.pid), pod.startTime, `${pod.handler}: start time`);
}

/** Every number from 1 on once, in order, none torn, and it goes on counting. Answers the last. */
export async function assertLogIsWhole(pod: CountingPod): Promise<number> {
  const last = await lastWhole(pod);
  await eventually(`${pod.handler} goes on counting`, async () => (await lastWhole(pod)) > last);
  return last;
}

async function lastWhole(pod: CountingPod): Promise<number> {
  const content = await readFile(pod.logPath, 'utf8');
  // The last line may be in the middle of being written.
  const lines = content.slice(0, content.lastIndexOf('\n')).split('\n');
  assert.ok(lines.length > 10, `${pod.handler}: the log has only ${lines.length} lines`);
  for (const [index, line] of lines.entries()) {
    const [, stream, tag, text] = line.split(' ');
    const isNext = stream === 'stdout' && tag === 'F' && text === String(index + 1);
    assert.ok(isNext, `${pod.handler}: line ${index + 1} of the log is "${line}"`);
  }
  return lines.length;
}
