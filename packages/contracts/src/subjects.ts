// THE table: which owner serves which verb, what it takes and answers, whether it changes anything,
// and how long the operation itself may run (its budget, which is not the caller's deadline).

import * as verbs from './gen/node/v1/verbs.ts';

/** Encodes and decodes one message; every generated message object is one. */
export interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
  fromPartial(object: object): T;
}

export const OWNER_KINDS = ['image-service', 'sandbox-manager', 'runtime'] as const;
export type OwnerKind = (typeof OWNER_KINDS)[number];

interface VerbRow {
  readonly owner: OwnerKind | 'every';
  // biome-ignore lint/suspicious/noExplicitAny: a codec is invariant; the rows keep their own types.
  readonly request: Codec<any>;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  readonly response: Codec<any>;
  /** A mutating request carries an operation id, is re-asked until answered, and is joined. */
  readonly mutates: boolean;
  /** What the owner gives the operation, in milliseconds; 0: bounded by its own progress instead. */
  readonly budgetMs: number;
}

const MINUTE_MS = 60_000;
const NOTHING = verbs.Nothing;

export const VERBS = {
  inventory: {
    owner: 'every',
    request: verbs.InventoryRequest,
    response: verbs.InventoryResponse,
    mutates: false,
    budgetMs: 10_000,
  },
  'acknowledge-operation': {
    owner: 'every',
    request: verbs.AcknowledgeOperationRequest,
    response: NOTHING,
    mutates: false,
    budgetMs: 10_000,
  },
  describe: {
    owner: 'every',
    request: verbs.DescribeRequest,
    response: verbs.DescribeResponse,
    mutates: false,
    budgetMs: 10_000,
  },

  // No total: a pull is cut when no byte arrives for the progress time-out.
  'pull-image': {
    owner: 'image-service',
    request: verbs.PullImageRequest,
    response: verbs.PullImageResponse,
    mutates: true,
    budgetMs: 0,
  },
  'remove-image': {
    owner: 'image-service',
    request: verbs.RemoveImageRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'image-fs-info': {
    owner: 'image-service',
    request: verbs.ImageFsInfoRequest,
    response: verbs.ImageFsInfoResponse,
    mutates: false,
    budgetMs: 10_000,
  },
  'take-lease': {
    owner: 'image-service',
    request: verbs.TakeLeaseRequest,
    response: verbs.TakeLeaseResponse,
    mutates: true,
    budgetMs: 30_000,
  },
  'end-lease': {
    owner: 'image-service',
    request: verbs.EndLeaseRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 30_000,
  },

  'run-pod-sandbox': {
    owner: 'sandbox-manager',
    request: verbs.RunPodSandboxRequest,
    response: verbs.RunPodSandboxResponse,
    mutates: true,
    budgetMs: 4 * MINUTE_MS,
  },
  'stop-pod-sandbox': {
    owner: 'sandbox-manager',
    request: verbs.SandboxIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'remove-pod-sandbox': {
    owner: 'sandbox-manager',
    request: verbs.SandboxIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'get-sandbox': {
    owner: 'sandbox-manager',
    request: verbs.SandboxIdRequest,
    response: verbs.GetSandboxResponse,
    mutates: false,
    budgetMs: 10_000,
  },
  'update-runtime-config': {
    owner: 'sandbox-manager',
    request: verbs.UpdateRuntimeConfigRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 10_000,
  },
  // A notice that comes before the kubelet resizes the pod's cgroup itself (KEP-1287).
  'update-sandbox-resources': {
    owner: 'sandbox-manager',
    request: verbs.UpdateSandboxResourcesRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 30_000,
  },
  'sample-sandboxes': {
    owner: 'sandbox-manager',
    request: verbs.SampleSandboxesRequest,
    response: verbs.SampleSandboxesResponse,
    mutates: false,
    budgetMs: 10_000,
  },
  'report-sandbox-exit': {
    owner: 'sandbox-manager',
    request: verbs.ReportSandboxExitRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 10_000,
  },

  'start-sandbox': {
    owner: 'runtime',
    request: verbs.StartSandboxRequest,
    response: verbs.StartSandboxResponse,
    mutates: true,
    budgetMs: MINUTE_MS,
  },
  'stop-sandbox': {
    owner: 'runtime',
    request: verbs.SandboxIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'remove-sandbox': {
    owner: 'runtime',
    request: verbs.SandboxIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'create-container': {
    owner: 'runtime',
    request: verbs.CreateContainerRequest,
    response: verbs.CreateContainerResponse,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'start-container': {
    owner: 'runtime',
    request: verbs.ContainerIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  // The grace period comes on top of it (budgetOf).
  'stop-container': {
    owner: 'runtime',
    request: verbs.StopContainerRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'remove-container': {
    owner: 'runtime',
    request: verbs.ContainerIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 2 * MINUTE_MS,
  },
  'reopen-container-log': {
    owner: 'runtime',
    request: verbs.ContainerIdRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 10_000,
  },
  // Only prepares the session: the command starts when its socket is dialled, so once at most.
  'exec-sync': {
    owner: 'runtime',
    request: verbs.ExecSyncRequest,
    response: verbs.Session,
    mutates: false,
    budgetMs: 10_000,
  },
  exec: {
    owner: 'runtime',
    request: verbs.ExecRequest,
    response: verbs.Session,
    mutates: false,
    budgetMs: 10_000,
  },
  attach: {
    owner: 'runtime',
    request: verbs.AttachRequest,
    response: verbs.Session,
    mutates: false,
    budgetMs: 10_000,
  },
  'port-forward': {
    owner: 'runtime',
    request: verbs.PortForwardRequest,
    response: verbs.Session,
    mutates: false,
    budgetMs: 10_000,
  },
  'update-container-resources': {
    owner: 'runtime',
    request: verbs.UpdateContainerResourcesRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 30_000,
  },
  // So does the limit that the request has of its own, which it meets first.
  'checkpoint-container': {
    owner: 'runtime',
    request: verbs.CheckpointContainerRequest,
    response: NOTHING,
    mutates: true,
    budgetMs: 10 * MINUTE_MS,
  },
  'sample-containers': {
    owner: 'runtime',
    request: verbs.SampleContainersRequest,
    response: verbs.SampleContainersResponse,
    mutates: false,
    budgetMs: 10_000,
  },
} as const satisfies Record<string, VerbRow>;

export type VerbName = keyof typeof VERBS;
type MessageOf<C> = C extends { decode(input: Uint8Array): infer T } ? T : never;
type DecodedBy<C> = C extends { decode(...args: never[]): infer T } ? T : MessageOf<C>;
export type RequestOf<V extends VerbName> = DecodedBy<(typeof VERBS)[V]['request']>;
export type ResponseOf<V extends VerbName> = DecodedBy<(typeof VERBS)[V]['response']>;

/** Time that a request asks for beyond this is a mistake; timers of Node end at 24 days. */
const ASKED_MS_MAX = 7 * 24 * 60 * MINUTE_MS;

/**
 * What the owner gives this operation, in milliseconds, for which its asker waits too: the verb's budget
 * and on top of it what the request itself asks for. 0: bounded by its own progress instead.
 */
export function budgetOf<V extends VerbName>(verb: V, request: RequestOf<V>): number {
  const { budgetMs } = VERBS[verb];
  if (verb !== 'stop-container' && verb !== 'checkpoint-container') return budgetMs;
  const { timeoutS } = request as RequestOf<'stop-container' | 'checkpoint-container'>;
  return budgetMs + Math.min(Math.max(0, Number(timeoutS) * 1_000), ASKED_MS_MAX);
}

/** The verbs that an owner of this kind must serve; its verb table is a mapped type over them. */
export type VerbsOf<K extends OwnerKind> = {
  [V in VerbName]: (typeof VERBS)[V]['owner'] extends K | 'every' ? V : never;
}[VerbName];

/** `image-service`, `sandbox-manager`, or `runtime.<handler>`: the writer of a set of objects. */
export type OwnerName = string & { readonly __brand: 'OwnerName' };
export const IMAGE_SERVICE = 'image-service' as OwnerName;
export const SANDBOX_MANAGER = 'sandbox-manager' as OwnerName;

/** The owner of the containers of one handler. */
export function runtimeOwner(handler: string): OwnerName {
  return `runtime.${subjectToken(handler)}` as OwnerName;
}

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';

/**
 * A name as one token of a subject. One that isn't `[A-Za-z0-9_-]+` is base32 (RFC 4648, lower
 * case, unpadded) behind `_32_`, so that no name can smuggle a dot or a wildcard into a subject.
 */
export function subjectToken(name: string): string {
  if (/^[A-Za-z0-9_-]+$/.test(name) && !name.startsWith('_32_')) return name;
  let bits = 0;
  let value = 0;
  let out = '_32_';
  for (const byte of Buffer.from(name, 'utf8')) {
    value = ((value << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += BASE32[(value >> bits) & 31];
    }
  }
  if (bits > 0) out += BASE32[(value << (5 - bits)) & 31];
  return out;
}

/** The subject on which an owner serves a verb. */
export function verbSubject(node: string, owner: OwnerName, verb: VerbName): string {
  return `cribus.${subjectToken(node)}.${owner}.${verb}`;
}

/** Events carry an ObjectReport (by kind) or an OwnerStatus (`owner`). */
export type EventKind = 'sandbox' | 'container' | 'image' | 'owner';

/** The subject of an event; `*` subscribes to all kinds. */
export function eventSubject(node: string, kind: EventKind | '*'): string {
  return `cribus.${subjectToken(node)}.event.${kind}`;
}

/** Request headers; `traceparent` is W3C Trace Context. */
export const REQUEST_HEADERS = {
  requestId: 'Cribus-Request-Id',
  operationId: 'Cribus-Operation-Id',
  /** Milliseconds that the asker will still wait, where it knows; for the log, it bounds nothing. */
  deadlineMs: 'Cribus-Deadline-Ms',
  /** 1 for the first time this operation id is asked. */
  attempt: 'Cribus-Attempt',
  traceparent: 'traceparent',
} as const;

/** A pending mutating request is asked again this often while its asker waits. */
export const REASK_INTERVAL_MS = 2_000;
/** How long an owner with no responder may be starting before the asker gives up on it. */
export const STARTUP_GRACE_MS = 5_000;
/** Finished operations and deletions are remembered this long. */
export const MEMORY_OF_THE_PAST_MS = 10 * MINUTE_MS;
/** An owner publishes its OwnerStatus at least this often. */
export const HEARTBEAT_INTERVAL_MS = 1_000;
/** CRI clients and servers refuse larger messages (cri-client, maxMsgSize). */
export const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
