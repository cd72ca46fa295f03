// The endpoint at which the kubelet's cAdvisor looks for CRI-O, where the operator turns it on: two
// answers over HTTP on a unix socket, both from memory.

import { mkdir, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createHttpServer } from '@cribus/chassis/http-server.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { containerPaths, WRITABLE_LAYER } from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { mountOf } from '@cribus/host/mounts.ts';
import { listenAsRoot, preparePath } from '../unix-socket.ts';
import type { NodeView } from '../view/node-view.ts';
import { containerAnswer, infoAnswer, type Storage } from './answers.ts';

const KEY = 'kubelet.cadvisor_socket';

/**
 * cAdvisor asks when it sees a new cgroup, and again a minute later where it got no answer. A cgroup may
 * be seen a moment before its report comes, and a gateway that just started has heard nobody yet.
 */
const GRACE_MS = 500;
const LOOK_AGAIN_MS = 20;

/** Ids are 64 hexadecimal digits; routes with longer names are no container's. */
const ID_CHARS_MAX = 128;

/** What cAdvisor can measure (its fs plugins); of another it raises an error for the whole container. */
const KNOWN_FILESYSTEMS = /^(ext[234]|xfs|btrfs|zfs|f2fs|jfs|overlay|tmpfs)$/;

interface Source {
  readonly clock: Clock;
  readonly view: NodeView;
  readonly storage: Storage;
}

/** Somebody else's socket is looked at again this often. */
const RETRY_MS = 5_000;

/**
 * Serves until the service ends. Where somebody else answers on the socket, as a CRI-O that runs here,
 * says so in the log and waits until that is over: pods come before their figures. Raises
 * invalid_argument for a path that is too long, wrong_state for one that can't be listened on.
 */
export async function serveCadvisor(
  service: Pick<Service, 'config' | 'clock' | 'log' | 'onStop' | 'background' | 'stopping'>,
  view: NodeView,
): Promise<void> {
  const { config, clock, log, stopping } = service;
  const storage = await openStorage(service);
  const server = createEndpoint({ clock, view, storage });
  const path = config.kubelet.cadvisor_socket;
  let made: string | undefined;
  service.onStop('endpoint for cAdvisor', async () => {
    await server.close();
    if (made !== undefined) await removeEmpty(dirname(path), made);
  });
  const tryToServe = async (): Promise<Failure | undefined> => {
    try {
      made = (await preparePath(path, KEY)) ?? made;
    } catch (error) {
      if (error instanceof Failure && error.kind === 'already_exists') return error;
      throw error;
    }
    try {
      await listenAsRoot(() => server.listen({ path }));
    } catch (cause) {
      throw new Failure('wrong_state', `${path}: ${String(cause)}`, { stage: KEY, cause });
    }
    log.info({ socket: path, filesystems: storage.counted }, 'cAdvisor is answered');
    return undefined;
  };
  const refusal = await tryToServe();
  if (refusal === undefined) return;
  log.error({ error: refusal }, 'cAdvisor gets no figures of containers from us');
  const waiting = async () => {
    do await clock.sleep(RETRY_MS, stopping);
    while ((await tryToServe()) !== undefined);
  };
  service.background('endpoint for cAdvisor', waiting());
}

function createEndpoint({ clock, view, storage }: Source) {
  const server = createHttpServer();
  server.get('/info', async (_request, reply) =>
    reply.type('application/json').send(infoAnswer(storage)),
  );
  server.get<{ Params: { id: string } }>('/containers/:id', async ({ params: { id } }, reply) => {
    const found = id.length > ID_CHARS_MAX ? undefined : await look({ clock, view, storage }, id);
    if (found !== undefined) return await reply.type('application/json').send(found);
    return await reply.code(404).type('text/plain').send(`there is no container ${id}`);
  });
  return server;
}

async function look({ clock, view, storage }: Source, id: string): Promise<string | undefined> {
  const untilMs = clock.monotonicMs() + GRACE_MS;
  for (;;) {
    const found = containerAnswer(view, storage, id);
    if (found !== undefined || clock.monotonicMs() >= untilMs) return found;
    await clock.sleep(LOOK_AGAIN_MS);
  }
}

async function openStorage({ config }: Pick<Service, 'config'>): Promise<Storage> {
  const { roots } = config;
  const emptyLayer = join(roots.state, 'cri-gateway', 'empty');
  await mkdir(join(emptyLayer, WRITABLE_LAYER), { recursive: true, mode: 0o700 });
  const filesystem = mountOf(roots.state)?.filesystem ?? '';
  return {
    root: roots.state,
    counted: KNOWN_FILESYSTEMS.test(filesystem),
    emptyLayer,
    directoryOf: ({ handler, id }: ContainerRecord) =>
      containerPaths(roots, subjectToken(handler), id).directory,
  };
}

/** Removes a directory and those above it, up to `topmost`, as far as they are empty. */
async function removeEmpty(directory: string, topmost: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    if (isErrno(error, 'ENOTEMPTY', 'EEXIST')) return;
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  if (directory.length > topmost.length) await removeEmpty(dirname(directory), topmost);
}
