// A connection to a pod's port that the engine makes: it dials a unix socket of ours, and what goes
// through it from then on is the port's (gVisor, `runsc port-forward --stream`).

import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { Failure } from '@cribus/contracts/failure.ts';
import { SOCKET_PATH_BYTES_MAX } from '@cribus/contracts/paths.ts';
import { ENGINE_SOCKET_INFIX } from './sessions.ts';
import type { Worker } from './worker.ts';

/** The engine has dialled when its command ends; this is for our own event loop. */
const ACCEPT_BUDGET_MS = 2_000;

/** Raises what the driver makes of the engine's words, or the signal's reason. */
export async function dialThroughEngine(
  worker: Worker,
  to: { readonly sandboxId: string; readonly port: number; readonly signal: AbortSignal },
): Promise<Socket> {
  const suffix = randomBytes(4).toString('hex');
  const path = `${worker.paths.sessionSocket}${ENGINE_SOCKET_INFIX}${suffix}`;
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new Failure('limit', `socket path ${path} is too long`);
  }
  const server = createServer({ allowHalfOpen: true });
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    await worker.engine.portForward(to.sandboxId, { ...to, socketPath: path });
    const socket = await Promise.race([
      accepted,
      worker.service.clock.sleep(ACCEPT_BUDGET_MS, to.signal).then(() => undefined),
    ]);
    if (socket === undefined) {
      throw new Failure('unavailable', 'the engine did not dial', { stage: 'engine port-forward' });
    }
    return socket;
  } catch (error) {
    void accepted.then((socket) => socket.destroy());
    throw error;
  } finally {
    server.close();
    await rm(path, { force: true });
  }
}
