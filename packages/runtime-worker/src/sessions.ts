// The unix socket on which bytes of exec sessions are fetched. A session is prepared by a verb, its
// secret travels over the bus, and whoever dials with it within ten seconds gets it, once.

import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { SOCKET_PATH_BYTES_MAX } from '@cribus/contracts/paths.ts';
import {
  createFrameReader,
  encodeJsonFrame,
  FRAME,
  SESSION_DIAL_BUDGET_MS,
  SESSION_SECRET_BYTES,
} from '@cribus/contracts/session.ts';

/** Prepared and not dialled yet; a probe every second of 500 containers stays far below. */
const PENDING_MAX = 4096;

/** Does the session's work on the connection; the signal aborts when the dialler is gone. */
export type SessionWork = (socket: Socket, gone: AbortSignal) => Promise<void>;

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
    const gone = new AbortController();
    const late = service.clock.timeout(SESSION_DIAL_BUDGET_MS);
    const drop = () => socket.destroy();
    late.addEventListener('abort', drop, { once: true });
    socket.on('error', () => gone.abort(new Failure('cancelled', 'the session was cut')));
    socket.on('close', () => {
      sockets.delete(socket);
      gone.abort(new Failure('cancelled', 'the session was closed'));
    });
    let taken = false;
    const read = createFrameReader((type, payload) => {
      if (taken) return;
      const key = payload.toString('hex');
      const work = type === FRAME.secret ? pending.get(key) : undefined;
      pending.delete(key);
      if (work === undefined) return void socket.destroy();
      taken = true;
      late.removeEventListener('abort', drop);
      service.background('session', serve(service, { work, socket, gone: gone.signal }));
    });
    socket.on('data', (chunk: Buffer) => {
      try {
        read(chunk);
      } catch (error) {
        if (!isFailure(error)) throw error;
        socket.destroy();
      }
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
  session: { readonly work: SessionWork; readonly socket: Socket; readonly gone: AbortSignal },
): Promise<void> {
  const { socket, gone } = session;
  try {
    await session.work(socket, gone);
  } catch (error) {
    if (gone.aborted) return;
    const known = isFailure(error) ? error : undefined;
    if (known === undefined) service.log.error({ error: String(error) }, 'a session has a bug');
    const kind = known?.kind ?? 'bug';
    socket.write(
      encodeJsonFrame(FRAME.failure, { kind, message: known?.message ?? 'internal error' }),
    );
  } finally {
    socket.end();
  }
}
