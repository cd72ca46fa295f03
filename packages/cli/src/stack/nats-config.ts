// nats-server.conf of the embedded bus: loopback only, and each user may use its own subjects.

import {
  eventSubject,
  IMAGE_SERVICE,
  runtimeOwner,
  SANDBOX_MANAGER,
  subjectToken,
} from '@cribus/contracts/subjects.ts';
import { USERS, type UserName } from './credentials.ts';

export interface NatsPlan {
  readonly node: string;
  readonly port: number;
  /** Handler name to family: they decide which subjects a worker may not listen on. */
  readonly handlers: Readonly<Record<string, 'runc' | 'gvisor'>>;
  readonly publicKeys: Readonly<Record<UserName, string>>;
}

export interface Permissions {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
  readonly subscribeDeny: readonly string[];
}

/** The bus carries one CRI message (16 MiB at most) and its envelope. */
const PAYLOAD_BYTES_MAX = 20 * 1024 * 1024;

/** What one user may publish and subscribe; a reply to a received request is allowed besides. */
export function permissionsOf(
  user: UserName,
  plan: Pick<NatsPlan, 'node' | 'handlers'>,
): Permissions {
  const prefix = `cribus.${subjectToken(plan.node)}`;
  const images = `${prefix}.${IMAGE_SERVICE}.*`;
  const sandboxes = `${prefix}.${SANDBOX_MANAGER}.*`;
  const workers = `${prefix}.runtime.*.*`;
  const events = eventSubject(plan.node, '*');
  const shared = [`_INBOX_${user}.>`, '$SRV.>', events];
  const denied = (family: 'runc' | 'gvisor') =>
    Object.entries(plan.handlers)
      .filter(([, other]) => other !== family)
      .map(([handler]) => `${prefix}.${runtimeOwner(handler)}.>`);
  switch (user) {
    case 'operator':
      return { publish: ['>'], subscribe: ['>'], subscribeDeny: [] };
    case 'cri-gateway':
      return {
        publish: [images, sandboxes, workers, '$SRV.>'],
        subscribe: shared,
        subscribeDeny: [],
      };
    case 'image-service':
      // It asks owners for their inventories, before it collects a lease.
      return {
        publish: [events, `${prefix}.*.inventory`, `${prefix}.runtime.*.inventory`],
        subscribe: [...shared, images],
        subscribeDeny: [],
      };
    case 'sandbox-manager':
      return {
        publish: [events, images, workers],
        subscribe: [...shared, sandboxes],
        subscribeDeny: [],
      };
    // A worker that is started later may serve a handler that nobody knew of before, so each may
    // listen for any handler but those that the configuration gives to the other family.
    case 'runtime-runc':
      return {
        publish: [events, images, sandboxes],
        subscribe: [...shared, workers],
        subscribeDeny: denied('runc'),
      };
    case 'runtime-gvisor':
      return {
        publish: [events, images, sandboxes],
        subscribe: [...shared, workers],
        subscribeDeny: denied('gvisor'),
      };
    default:
      return user satisfies never;
  }
}

/** The text of nats-server.conf. */
export function natsConfig(plan: NatsPlan): string {
  const users = USERS.map((user) => userBlock(user, plan)).join('\n');
  return `# Written by "cribus up" at each start: changes here are lost.
# The bus of this stack, for this machine only. Try it as the operator:
#   nats --server nats://127.0.0.1:${plan.port} --nkey <state>/credentials/operator.nk sub '>'
host: "127.0.0.1"
port: ${plan.port}
server_name: "cribus-${subjectToken(plan.node)}"

# One message holds a CRI answer of up to 16 MiB.
max_payload: ${PAYLOAD_BYTES_MAX}
max_connections: 256
ping_interval: "20s"
logtime: true

# Every user is a key pair; the seeds are in <state>/credentials, readable by root alone.
authorization {
  timeout: 5
  users: [
${users}
  ]
}
`;
}

function userBlock(user: UserName, plan: NatsPlan): string {
  const { publish, subscribe, subscribeDeny } = permissionsOf(user, plan);
  const deny = subscribeDeny.length === 0 ? '' : `, deny: ${list(subscribeDeny)}`;
  return `    # ${user}
    {
      nkey: ${plan.publicKeys[user]}
      permissions: {
        publish: { allow: ${list(publish)} }
        subscribe: { allow: ${list(subscribe)}${deny} }
        # Answers to what it was asked, also after a long pull.
        allow_responses: { max: 16, expires: "1h" }
      }
    }`;
}

function list(subjects: readonly string[]): string {
  return `[${subjects.map((subject) => JSON.stringify(subject)).join(', ')}]`;
}
