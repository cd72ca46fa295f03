// The unix socket on which bytes of exec sessions are fetched. A session is prepared by a verb, its
// secret travels over the bus, and whoever dials with it within ten seconds gets it, once.

import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { SOCKET_PATH_BYTES_MAX } from '@cribus/contracts/paths.ts';
import { FRAME, SESSION_DIAL_BUDGET_MS, SESSION_SECRET_BYTES } from '@cribus/contracts/session.ts';
import { createChannel, readFrames, type SessionChannel } from './session-channel.ts';

/** Prepared and not dialled yet; a probe every second of 500 containers stays far below. */
const PENDING_MAX = 4096;

/** Behind the path of the socket, before some letters: sockets that engines dial. */
export const ENGINE_SOCKET_INFIX = '.e-';

/** Does the session's work on the connection; its failure is the last frame. */
export type SessionWork = (channel: SessionChannel) => Promise<void>;

export interface Sessions {
  /** Raises limit when too many wait to be dialled. */
  prepare(work: SessionWork): Session;
  listen(): Promise<void>;
  close(): Promise<void>;
}

export function createSessions(service: Service, socketPath: string): Sessions {
  const pending = new Map<string, SessionWork>();
  const sockets = new Set<Socket>();
  let server: Server | undefined;

  const accept = (socket: Socket) => {
    sockets.add(socket);
    const late = service.clock.timeout(SESSION_DIAL_BUDGET_MS);
    const drop = () => socket.destroy();
    late.addEventListener('abort', drop, { once: true });
    const { channel, take } = createChannel(socket, service.clock);
    socket.on('close', () => sockets.delete(socket));
    let taken = false;
    readFrames(socket, (type, payload) => {
      if (taken) return take(type, payload);
      const key = payload.toString('hex');
      const work = type === FRAME.secret ? pending.get(key) : undefined;
      pending.delete(key);
      if (work === undefined) return void socket.destroy();
      taken = true;
      late.removeEventListener('abort', drop);
      service.background('session', serve(service, { work, socket, channel }));
    });
  };

  return {
    prepare: (work) => {
      if (pending.size >= PENDING_MAX) {
        throw new Failure('limit', `${pending.size} sessions wait to be dialled`);
      }
      const secret = randomBytes(SESSION_SECRET_BYTES);
      const key = secret.toString('hex');
      pending.set(key, work);
      const expired = service.clock.timeout(SESSION_DIAL_BUDGET_MS);
      expired.addEventListener('abort', () => pending.delete(key), { once: true });
      return Session.fromPartial({ socketPath, secret });
    },
    listen: async () => {
      if (Buffer.byteLength(socketPath) > SOCKET_PATH_BYTES_MAX) {
        throw new Failure('invalid_argument', `socket path ${socketPath} is too long`);
      }
      await mkdir(dirname(socketPath), { recursive: true, mode: 0o700 });
      const left = (await readdir(dirname(socketPath))).filter((name) =>
        name.startsWith(`${basename(socketPath)}${ENGINE_SOCKET_INFIX}`),
      );
      for (const name of left) await rm(join(dirname(socketPath), name), { force: true });
      await rm(socketPath, { force: true });
      const listening = createServer(accept);
      server = listening;
      await new Promise<void>((resolve, reject) => {
        listening.once('error', reject);
        listening.listen(socketPath, resolve);
      });
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => {
        if (server === undefined) resolve();
        else server.close(() => resolve());
      });
    },
  };
}

async function serve(
  service: Service,
  session: {
    readonly work: SessionWork;
    readonly socket: Socket;
    readonly channel: SessionChannel;
  },
): Promise<void> {
  const { socket, channel } = session;
  try {
    await session.work(channel);
  } catch (error) {
    if (channel.gone.aborted) return;
    const known = isFailure(error) ? error : undefined;
    if (known === undefined) service.log.error({ error: String(error) }, 'a session has a bug');
    const kind = known?.kind ?? 'bug';
    channel.sendJson(FRAME.failure, { kind, message: known?.message ?? 'internal error' });
  } finally {
    // What still comes is read and dropped, so that the other side's end is seen.
    channel.receive(() => undefined);
    socket.end();
  }
}
