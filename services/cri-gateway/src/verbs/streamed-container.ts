// What exec and attach check before they promise a stream.

import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Gateway } from '../gateway.ts';
import { requireContainer } from './lookup.ts';

/**
 * Raises invalid_argument for streams that can't be had together: a terminal has one output, and a
 * stream of nothing is none (api.proto, ExecRequest and AttachRequest).
 */
export function checkStreams(request: {
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}): void {
  const { tty, stdin, stdout, stderr } = request;
  if (tty && stderr) {
    throw new Failure('invalid_argument', 'tty and stderr can not both be true');
  }
  if (!stdin && !stdout && !stderr) {
    throw new Failure('invalid_argument', 'one of stdin, stdout and stderr must be true');
  }
}

/** The container of an id; raises not_found without one, wrong_state when it doesn't run. */
export function requireRunning(gateway: Gateway, containerId: string): ContainerRecord {
  const container = requireContainer(gateway, containerId);
  if (container.phase !== ContainerPhase.RUNNING) {
    throw new Failure('wrong_state', `container "${container.id}" is not running`);
  }
  return container;
}
