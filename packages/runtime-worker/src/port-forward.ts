// PortForward: one connection to a port of the pod, with its bytes on a session. How the pod is reached
// is the driver's: from its network namespace, through the engine, or by its address.

import type { Socket } from 'node:net';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { dialTcp } from '@cribus/host/dial.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { wasReset } from '@cribus/host/sockets.ts';
import type { PortForwardStrategy } from './driver.ts';
import { dialThroughEngine } from './port-forward-by-engine.ts';
import { pour, pump, type SessionChannel } from './session-channel.ts';
import type { Worker } from './worker.ts';

const DIAL_BUDGET_MS = 10_000;
const PORT_MAX = 65_535;
/** As `localhost` is looked up, for servers that listen on one of them only. */
const LOOPBACKS = ['127.0.0.1', '::1'] as const;

/** invalid_argument for no port, wrong_state unless the pod is ready. The session dials. */
export function portForward(worker: Worker): VerbHandler<'port-forward'> {
  return async ({ sandbox, port }) => {
    if (sandbox === undefined) throw new Failure('invalid_argument', 'no pod to forward to');
    if (port < 1 || port > PORT_MAX) {
      throw new Failure('invalid_argument', `${nameOf(sandbox)} has no port ${port}`);
    }
    if (sandbox.phase !== SandboxPhase.READY) {
      throw new Failure('wrong_state', `${nameOf(sandbox)} is not ready: ${sandbox.reason}`);
    }
    return worker.sessions.prepare((channel) => forward(worker, { sandbox, port, channel }));
  };
}

function nameOf(sandbox: SandboxRecord): string {
  const { namespace = '', name = '' } = sandbox.config?.metadata ?? {};
  return `pod ${namespace}/${name} (${sandbox.id})`;
}

interface Forwarding {
  readonly sandbox: SandboxRecord;
  readonly port: number;
  readonly channel: SessionChannel;
}

async function forward(worker: Worker, what: Forwarding): Promise<void> {
  const { channel } = what;
  const { stopping } = worker.service;
  const remote = await dial(worker, what);
  const cut = () => remote.destroy();
  channel.gone.addEventListener('abort', cut, { once: true });
  stopping.addEventListener('abort', cut, { once: true });
  try {
    if (channel.gone.aborted) return;
    if (stopping.aborted) cut();
    await carry(remote, { ...what, stopping });
    channel.sendJson(FRAME.exit, { exitCode: 0 });
  } finally {
    channel.gone.removeEventListener('abort', cut);
    stopping.removeEventListener('abort', cut);
    remote.destroy();
  }
}

/**
 * Resolves when both directions have ended, or the remote side is closed after it said all. Raises
 * unavailable where it could not say all.
 */
function carry(
  remote: Socket,
  { sandbox, port, channel, stopping }: Forwarding & { readonly stopping: AbortSignal },
): Promise<void> {
  return new Promise((resolve, reject) => {
    let saidAll = false;
    const fail = (how: string, cause?: Error): void => {
      const why = `${nameOf(sandbox)}: the connection to port ${port} ${how}`;
      reject(new Failure('unavailable', why, { stage: 'port-forward', cause }));
    };
    remote.on('error', (cause) => {
      if (saidAll) resolve();
      else fail(`broke: ${cause.message}`, cause);
    });
    remote.on('close', () => {
      if (stopping.aborted && !saidAll) fail('was ended: its worker is being stopped');
      else resolve();
    });
    pump(remote, channel, { type: FRAME.stdout });
    remote.on('end', () => {
      if (wasReset(remote)) return fail('broke: it was reset');
      saidAll = true;
      channel.send(FRAME.stdoutEnd, Buffer.alloc(0));
    });
    channel.receive((type, payload) => {
      if (type === FRAME.stdin) pour(channel, payload, remote);
      if (type === FRAME.stdinEnd) remote.end();
    });
  });
}

/** Raises unavailable with the pod, the port and what each way said. */
async function dial(worker: Worker, what: Forwarding): Promise<Socket> {
  const { clock, stopping } = worker.service;
  const limits = [what.channel.gone, stopping, clock.timeout(DIAL_BUDGET_MS)];
  return await withJoinedSignal(limits, (signal) => dialWithin(worker, { ...what, signal }));
}

async function dialWithin(
  worker: Worker,
  what: Forwarding & { readonly signal: AbortSignal },
): Promise<Socket> {
  const { sandbox, port, channel, signal } = what;
  const netns = sandbox.namespaces?.net ?? '';
  const ways = netns === '' ? (['host'] as const) : worker.driver.portForward;
  const said: string[] = [];
  for (const way of ways) {
    for (const attempt of attempts(worker, { ...what, way, netns })) {
      try {
        return await attempt.connect();
      } catch (error) {
        channel.gone.throwIfAborted();
        if (!isFailure(error) && !isErrno(error, ...DIAL_ERRORS) && !signal.aborted) throw error;
        said.push(`${attempt.to}: ${reasonOf(error)}`);
      }
    }
  }
  throw new Failure(
    'unavailable',
    `${nameOf(sandbox)}: port ${port} can't be reached: ${said.join('; ')}`,
    { stage: 'port-forward' },
  );
}

/** EADDRNOTAVAIL and EAFNOSUPPORT: a pod without IPv6. */
const DIAL_ERRORS = [
  ...['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'EACCES', 'EPERM'],
  ...['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'ENOENT', 'EINVAL', 'EMFILE', 'ENFILE', 'ENOBUFS'],
];

function reasonOf(error: unknown): string {
  if (isErrno(error, 'ECONNREFUSED')) return 'connection refused';
  return error instanceof Error ? error.message : String(error);
}

interface Attempt {
  readonly to: string;
  connect(): Promise<Socket>;
}

function attempts(
  worker: Worker,
  how: Forwarding & {
    readonly way: PortForwardStrategy | 'host';
    readonly netns: string;
    readonly signal: AbortSignal;
  },
): Attempt[] {
  const { sandbox, port, netns, signal } = how;
  const tcp = (address: string, inside?: string): Attempt => ({
    to: address,
    connect: () =>
      dialTcp({ address, port, signal, ...(inside === undefined ? {} : { netns: inside }) }),
  });
  switch (how.way) {
    case 'host':
      return LOOPBACKS.map((address) => tcp(address));
    case 'netns':
      return LOOPBACKS.map((address) => tcp(address, netns));
    case 'pod-address':
      return (sandbox.network?.ips ?? []).map((address) => tcp(address));
    case 'engine':
      return [
        {
          to: `${worker.engine.command} port-forward`,
          connect: () => dialThroughEngine(worker, { sandboxId: sandbox.id, port, signal }),
        },
      ];
    default:
      return how.way satisfies never;
  }
}
