// Status: whether the runtime and its network are ready, what each handler can do, and, when verbose,
// how the parts are.

import {
  type RuntimeCondition,
  type RuntimeHandler,
  type StatusRequest,
  StatusResponse,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import { IMAGE_SERVICE, runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';

export function status(gateway: Gateway): Verb<StatusRequest, StatusResponse> {
  return async (request) => {
    const standard = handlerStatus(gateway, gateway.config.runtimes.default);
    return StatusResponse.fromPartial({
      status: { conditions: [runtimeReady(gateway), networkReady(gateway)] },
      info: request.verbose ? verboseInfo(gateway) : {},
      runtimeHandlers: runtimeHandlers(gateway),
      features: {
        supplementalGroupsPolicy: standard?.supplementalGroupsPolicy === true,
        userNamespacesHostNetwork:
          standard?.userNamespaces === true && standard.hostNetwork === true,
      },
    });
  };
}

/** Ready when the view is whole and everything that a pod of the default handler needs is there. */
function runtimeReady(gateway: Gateway): RuntimeCondition {
  const missing = gateway.feed.missing();
  const needed = [IMAGE_SERVICE, SANDBOX_MANAGER, runtimeOwner(gateway.config.runtimes.default)];
  const absences = needed.flatMap((owner) => gateway.owners.absence(owner) ?? []);
  if (missing.length > 0) {
    const message = `the state of this node is not known yet: waiting for ${missing.join(', ')}`;
    return { type: 'RuntimeReady', status: false, reason: 'StateNotKnownYet', message };
  }
  if (absences.length > 0) {
    const message = absences.join('; ');
    return { type: 'RuntimeReady', status: false, reason: 'PartUnavailable', message };
  }
  return { type: 'RuntimeReady', status: true, reason: '', message: '' };
}

function networkReady(gateway: Gateway): RuntimeCondition {
  const reported = gateway.owners
    .status(SANDBOX_MANAGER)
    ?.conditions.find((condition) => condition.type === 'NetworkReady');
  if (reported !== undefined) return reported;
  const message = `${SANDBOX_MANAGER} has not reported the network yet`;
  return { type: 'NetworkReady', status: false, reason: 'NetworkNotKnownYet', message };
}

function handlerStatus(gateway: Gateway, handler: string): OwnerStatus['handler'] {
  return gateway.owners.status(runtimeOwner(handler))?.handler;
}

/** "" stands for the default and must be there, or features of plain pods read as false. */
function runtimeHandlers(gateway: Gateway): RuntimeHandler[] {
  const served = gateway.owners
    .handlers()
    .filter((handler) => gateway.owners.isAlive(runtimeOwner(handler)));
  const entry = (name: string, handler: string): RuntimeHandler => {
    const can = handlerStatus(gateway, handler);
    return {
      name,
      features: {
        recursiveReadOnlyMounts: can?.recursiveReadOnlyMounts === true,
        userNamespaces: can?.userNamespaces === true,
      },
    };
  };
  return [
    entry('', gateway.config.runtimes.default),
    ...served.map((handler) => entry(handler, handler)),
  ];
}

function verboseInfo(gateway: Gateway): Record<string, string> {
  const origins = gateway.feed.origins();
  const owners = gateway.owners.statuses().map((owner) => ({
    name: owner.owner,
    service: owner.service,
    version: owner.version,
    pid: owner.pid,
    epoch: owner.epoch,
    sequence: owner.sequence,
    instanceId: owner.instanceId,
    absence: gateway.owners.absence(runtimeOwnerName(owner)) ?? null,
    handler: owner.handler ?? null,
    warnings: owner.warnings,
    details: owner.details,
  }));
  return {
    config: toJson(gateway.config),
    cgroupDriver: toJson(gateway.config.cgroups.driver),
    owners: toJson(owners),
    view: toJson(Object.fromEntries(origins)),
    // Several owners may miss the same thing of one host.
    warnings: toJson([...new Set(gateway.owners.statuses().flatMap((owner) => owner.warnings))]),
    cni: toJson({ ...gateway.config.cni, condition: networkReady(gateway) }),
  };
}

function runtimeOwnerName(owner: OwnerStatus): ReturnType<typeof runtimeOwner> {
  return owner.owner as ReturnType<typeof runtimeOwner>;
}

/** JSON where 64-bit numbers are texts, as protobuf's JSON has them, and URLs have no credentials. */
function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, field: unknown) => {
    if (typeof field === 'bigint') return String(field);
    return typeof field === 'string' ? field.replace(/\/\/[^/@\s]*@/, '//…@') : field;
  });
}
