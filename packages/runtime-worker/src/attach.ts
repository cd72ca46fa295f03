// Attach: the streams of a container's own process, from now on, on a session. The monitor has them, and
// serves any number of connections to its attach socket.

import { join } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { AttachRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { connectPackets, type PacketSocket } from '@cribus/host/packet-socket.ts';
import { type AttachedOutputs, createAttachedOutputs } from './attached-outputs.ts';
import { tellMonitor } from './monitor.ts';
import { phaseName } from './phases.ts';
import type { SessionChannel } from './session-channel.ts';
import { readSize } from './terminal-input.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

/** In the bundle, with conmon's --full-attach and --socket-dir-path. */
const ATTACH_SOCKET = 'attach';
/** conmon takes 32 KiB in one packet and drops what is beyond. */
const PACKET_BYTES_MAX = 8 * 1024;
/** Too many connect at the same time. */
const CONNECT_TRIES_MAX = 50;
const CONNECT_PAUSE_MS = 20;

/** wrong_state unless the container is created or runs. */
export function attach(worker: Worker): VerbHandler<'attach'> {
  return async (request) => {
    requireAttachable(worker, request.containerId);
    return worker.sessions.prepare((channel) => attachTo(worker, request, channel));
  };
}

function requireAttachable(worker: Worker, id: string): ContainerRecord {
  const record = requireContainer(worker, id);
  const { phase } = record;
  if (phase !== ContainerPhase.RUNNING && phase !== ContainerPhase.CREATED) {
    throw new Failure(
      'wrong_state',
      `container ${id} is ${phaseName(phase)}, so nothing can be attached to it`,
    );
  }
  return record;
}

async function attachTo(
  worker: Worker,
  request: AttachRequest,
  channel: SessionChannel,
): Promise<void> {
  const record = requireAttachable(worker, request.containerId);
  const takesStdin = request.stdin && record.config?.stdin === true;
  const connection =
    takesStdin || !isStdinOnce(record)
      ? await open(worker, record, () => channel.resume())
      : await share(worker, record);
  try {
    const limits = [channel.gone, worker.service.stopping];
    const hasEnded = await withJoinedSignal(limits, async (signal) => {
      const over = connection.outputs.passTo({ request, channel }, signal);
      const stdin = takesStdin ? connection.packets : undefined;
      channel.receive(input(worker, { record, channel, stdin }));
      return await over;
    });
    if (!hasEnded) {
      // The container runs on, which an exit would deny.
      const why = `attach to container ${record.id} was ended: its worker is being stopped`;
      throw new Failure('unavailable', why);
    }
    channel.sendJson(FRAME.exit, { exitCode: 0 });
  } finally {
    connection.leave();
  }
}

/** Whether the monitor closes the container's stdin at the end of any connection (see monitorArgv). */
function isStdinOnce({ config }: ContainerRecord): boolean {
  return config?.stdin === true && config.stdinOnce && !config.tty;
}

/** A connection to the monitor, and what it says there. */
export interface Watching {
  readonly packets: PacketSocket;
  readonly outputs: AttachedOutputs;
  /** Of one session that is over. */
  leave(): void;
}

async function open(
  worker: Worker,
  record: ContainerRecord,
  onFree: () => void,
): Promise<Watching> {
  const packets = await connect(worker, record, onFree);
  const outputs = createAttachedOutputs(worker, record.id, packets);
  return { packets, outputs, leave: () => packets.close() };
}

/**
 * The one connection of all sessions without stdin to a container whose stdin ends with its first
 * client's: it stays when they leave, as the monitor would take it for that client. Only a worker that
 * ends can't keep it open.
 */
function share(worker: Worker, record: ContainerRecord): Promise<Watching> {
  const { watching } = worker;
  const known = watching.get(record.id);
  if (known !== undefined) return known;
  const opened = open(worker, record, () => undefined).then((connection) => {
    void connection.outputs.ended.then(() => {
      watching.delete(record.id);
      connection.packets.close();
    });
    return { ...connection, leave: () => undefined };
  });
  watching.set(record.id, opened);
  opened.catch(() => watching.delete(record.id));
  return opened;
}

async function connect(
  worker: Worker,
  record: ContainerRecord,
  onFree: () => void,
): Promise<PacketSocket> {
  const path = join(placesOf(worker, record.id).bundle, ATTACH_SOCKET);
  for (let left = CONNECT_TRIES_MAX; ; left -= 1) {
    try {
      return connectPackets(path, onFree);
    } catch (cause) {
      if (!isErrno(cause, 'EAGAIN') || left === 0) {
        throw new Failure('wrong_state', `the monitor of container ${record.id} takes nobody`, {
          stage: 'attach',
          cause,
        });
      }
      await worker.service.clock.sleep(CONNECT_PAUSE_MS);
    }
  }
}

interface Attached {
  readonly record: ContainerRecord;
  readonly channel: SessionChannel;
  /** Undefined for a session without. */
  readonly stdin: PacketSocket | undefined;
}

function input(worker: Worker, attached: Attached): (type: number, payload: Buffer) => void {
  const { record, channel, stdin } = attached;
  return (type, payload) => {
    if (type === FRAME.resize && record.config?.tty === true) {
      const { columns, rows } = readSize(payload);
      const { bundle } = placesOf(worker, record.id);
      tellMonitor(bundle, { resize: { columns, rows } }).catch((error: unknown) => {
        worker.service.log.warn({ container: record.id, error: String(error) }, 'no resize');
      });
    }
    if (stdin === undefined) return;
    if (type === FRAME.stdin) {
      let free = true;
      for (let at = 0; at < payload.length; at += PACKET_BYTES_MAX) {
        free = stdin.send(Buffer.from(payload.subarray(at, at + PACKET_BYTES_MAX)));
      }
      if (!free) channel.pause();
    }
    // The monitor closes the container's stdin unless that is to stay open for others.
    if (type === FRAME.stdinEnd) stdin.end();
  };
}
