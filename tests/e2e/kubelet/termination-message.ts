// The last words of a container as the kubelet finds them: in the file that is mounted at the
// termination message path, or at the end of the log where that is asked for.

import { existsSync, readFileSync } from 'node:fs';
import { ContainerState, type ContainerStatus } from '@cribus/contracts/gen/cri/v1/api.ts';

/** The kubelet's MaxContainerTerminationMessageLength and ...LogLength. */
const MESSAGE_BYTES_MAX = 4096;
const LOG_BYTES_MAX = 2048;
const LOG_LINES_MAX = 80;
const ANNOTATION = 'io.kubernetes.container.terminationMessage';

/** Empty for what has not ended, or said nothing. */
export function terminationMessage(status: ContainerStatus): string {
  if (status.state !== ContainerState.CONTAINER_EXITED) return '';
  const path = status.annotations[`${ANNOTATION}Path`];
  const mount = status.mounts.find(({ containerPath }) => containerPath === path);
  const text = mount === undefined ? '' : readFileSync(mount.hostPath, 'utf8');
  if (text !== '') return text.slice(0, MESSAGE_BYTES_MAX);
  const fallsBack = status.annotations[`${ANNOTATION}Policy`] === 'FallbackToLogsOnError';
  if (!fallsBack || status.exitCode === 0 || !existsSync(status.logPath)) return '';
  const lines = readFileSync(status.logPath, 'utf8').split('\n').slice(0, -1);
  const texts = lines.slice(-LOG_LINES_MAX).map((line) => line.split(' ').slice(3).join(' '));
  return texts.join('\n').slice(-LOG_BYTES_MAX);
}
