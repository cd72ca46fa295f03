// The image service without a bus, for tests: real directories, threads and HTTP; what is reported
// and logged is kept.

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Config, parseConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { createImageStore, type ImageStore } from '../image-store.ts';
import { createPuller, type Puller } from '../pull.ts';

export interface ImageStack {
  readonly directory: string;
  readonly certsDirectory: string;
  readonly service: Service;
  readonly store: ImageStore;
  readonly pull: Puller;
  readonly logged: string[];
  /** A new store over the same directory, as after a restart. */
  reopen(): Promise<ImageStore>;
  close(): Promise<void>;
}

export async function openImageStack(configText = ''): Promise<ImageStack> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-images-'));
  const logged: string[] = [];
  const end = new AbortController();
  const config: Config = parseConfig(configText, { file: 'test.toml', directory });
  const write = (level: string) => (fields: object, message: string) => {
    logged.push(
      JSON.stringify([level, message, fields], (_, value: unknown) =>
        typeof value === 'bigint' ? String(value) : value instanceof Error ? value.stack : value,
      ),
    );
  };
  const log: Logger = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: () => log,
  };
  const service = {
    config,
    clock: systemClock,
    log,
    bus: { publish: () => {} },
    metrics: createMetrics('image-service'),
    mirror: { report: () => {} },
    stopping: end.signal,
    background: (_name: string, work: Promise<unknown>) => {
      work.catch((error: unknown) => logged.push(String(error)));
    },
  } as unknown as Service;
  const images = join(directory, 'images');
  await mkdir(images, { recursive: true });
  let epoch = 0n;
  const open = async () => {
    epoch += 1n;
    const store = createImageStore({ service, epoch, directory: images });
    await store.load();
    return store;
  };
  const store = await open();
  const metrics = { expected: () => {}, received: () => {}, begun: () => {}, ended: () => {} };
  return {
    directory,
    certsDirectory: config.images.certs_dir,
    service,
    store,
    pull: createPuller({ service, store, metrics }),
    logged,
    reopen: open,
    async close() {
      end.abort();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
