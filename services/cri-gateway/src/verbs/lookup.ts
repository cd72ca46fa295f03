// Checks that come before anything else, and finding the object that a request names. Ids may be
// shortened to a unique beginning, as people type them.

import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Gateway } from '../gateway.ts';
import { isContainerShown } from '../view/cri-container.ts';
import type { Found } from '../view/node-view.ts';

/** Raises invalid_argument for an empty text. */
export function requireText(value: string, field: string): void {
  if (value === '') throw new Failure('invalid_argument', `${field} is empty`);
}

/** Raises invalid_argument for a handler that is neither configured nor announced. */
export function requireHandler(gateway: Gateway, handler: string): void {
  const known = gateway.owners.handlers();
  if (known.includes(handler)) return;
  throw new Failure(
    'invalid_argument',
    `no runtime for "${handler}" is configured; known: ${known.join(', ')}`,
  );
}

/**
 * The sandbox, or undefined when there is none. Raises invalid_argument for an empty or ambiguous
 * id, unavailable while an absent one could still be reported.
 */
export function findSandbox(gateway: Gateway, id: string): SandboxRecord | undefined {
  requireText(id, 'pod_sandbox_id');
  return known(gateway, 'sandbox', id, gateway.view.findSandbox(id));
}

/** As findSandbox; raises not_found where there is none. */
export function requireSandbox(gateway: Gateway, id: string): SandboxRecord {
  const record = findSandbox(gateway, id);
  if (record === undefined) throw new Failure('not_found', `sandbox "${id}" does not exist`);
  return record;
}

/** As findSandbox, for a container that callers may know of. */
export function findContainer(gateway: Gateway, id: string): ContainerRecord | undefined {
  requireText(id, 'container_id');
  const record = known(gateway, 'container', id, gateway.view.findContainer(id));
  return record !== undefined && isContainerShown(record) ? record : undefined;
}

export function requireContainer(gateway: Gateway, id: string): ContainerRecord {
  const record = findContainer(gateway, id);
  if (record === undefined) throw new Failure('not_found', `container "${id}" does not exist`);
  return record;
}

function known<R>(gateway: Gateway, what: string, id: string, found: Found<R>): R | undefined {
  if (found.ambiguous) {
    throw new Failure('invalid_argument', `"${id}" is how the ids of several ${what}s begin`);
  }
  // Absent is an answer only once everybody who could know it was heard.
  if (found.record === undefined) gateway.feed.requirePrimed();
  return found.record;
}
