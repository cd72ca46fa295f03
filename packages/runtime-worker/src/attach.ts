// Attach: the streams of a container's own process, from now on, on a session. The monitor has them, and
// serves any number of connections to its attach socket.

import { join } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { AttachRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { connectPackets, type PacketSocket } from '@cribus/host/packet-socket.ts';
import { tellMonitor } from './monitor.ts';
import { phaseName } from './phases.ts';
import type { SessionChannel } from './session-channel.ts';
import { readSize } from './terminal-input.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

/** In the bundle, with conmon's --full-attach and --socket-dir-path. */
const ATTACH_SOCKET = 'attach';
/** First byte of what conmon sends (conmon, src/utils.h); the rest is the stream's. */
const MONITOR_STREAMS = { 2: 'stdout', 3: 'stderr' } as const;
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
  const packets = await connect(worker, record, () => channel.resume());
  const cut = () => packets.close();
  channel.gone.addEventListener('abort', cut, { once: true });
  worker.service.stopping.addEventListener('abort', cut, { once: true });
  try {
    await carry(worker, { request, record, channel, packets });
    channel.sendJson(FRAME.exit, { exitCode: 0 });
  } finally {
    channel.gone.removeEventListener('abort', cut);
    worker.service.stopping.removeEventListener('abort', cut);
    packets.close();
  }
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
  readonly request: AttachRequest;
  readonly record: ContainerRecord;
  readonly channel: SessionChannel;
  readonly packets: PacketSocket;
}

/** Resolves when the monitor closes the connection, which it does at the container's end. */
function carry(worker: Worker, attached: Attached): Promise<void> {
  const { request, channel, packets } = attached;
  const { stream } = packets;
  const pass = (packet: Buffer): boolean => {
    const name = MONITOR_STREAMS[packet[0] as keyof typeof MONITOR_STREAMS];
    if (name === undefined || !request[name]) return true;
    return channel.send(FRAME[name], packet.subarray(1));
  };
  return new Promise((resolve) => {
    stream.on('data', (packet: Buffer) => {
      if (pass(packet)) return;
      stream.pause();
      channel.onceFree(() => stream.resume());
    });
    stream.on('end', () => {
      for (const packet of packets.readRest()) pass(packet);
      resolve();
    });
    stream.on('error', () => resolve());
    stream.on('close', () => resolve());
    channel.receive(input(worker, attached));
  });
}

function input(worker: Worker, attached: Attached): (type: number, payload: Buffer) => void {
  const { request, record, channel, packets } = attached;
  const takesStdin = request.stdin && record.config?.stdin === true;
  return (type, payload) => {
    if (type === FRAME.resize && record.config?.tty === true) {
      const { columns, rows } = readSize(payload);
      const { bundle } = placesOf(worker, record.id);
      tellMonitor(bundle, { resize: { columns, rows } }).catch((error: unknown) => {
        worker.service.log.warn({ container: record.id, error: String(error) }, 'no resize');
      });
    }
    if (!takesStdin) return;
    if (type === FRAME.stdin) {
      let free = true;
      for (let at = 0; at < payload.length; at += PACKET_BYTES_MAX) {
        free = packets.send(Buffer.from(payload.subarray(at, at + PACKET_BYTES_MAX)));
      }
      if (!free) channel.pause();
    }
    // The monitor closes the container's stdin unless that is to stay open for others.
    if (type === FRAME.stdinEnd) packets.end();
  };
}
