// A Service for tests that want a real bus and a real mirror without a process of their own.

import { randomUUID } from 'node:crypto';
import { systemClock } from '@cribus/host/clock.ts';
import { connectBus } from '../bus.ts';
import { parseConfig } from '../config.ts';
import { createLogger, type Logger } from '../log.ts';
import { createMetrics } from '../metrics.ts';
import { createMirror } from '../mirror.ts';
import type { Service, ServiceName } from '../service.ts';

export interface TestService extends Service {
  /** Each line that was logged, parsed. */
  readonly lines: readonly Record<string, unknown>[];
  /** Ends as runService would on SIGTERM. */
  stop(): Promise<void>;
  /** Ends as kill -9 would, as far as others can see. */
  crash(): Promise<void>;
}

/** A logger whose lines are kept. */
export function createTestLog(): { log: Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) };
  return { log: createLogger({ service: 'test', level: 'debug', stream }), lines };
}

export async function createTestService(options: {
  readonly natsUrl: string;
  readonly redisUrl?: string;
  readonly name?: ServiceName;
  readonly node?: string;
  readonly credentialsDirectory?: string;
}): Promise<TestService> {
  const name = options.name ?? 'runtime-runc';
  const node = options.node ?? 'node';
  const { log, lines } = createTestLog();
  const stopping = new AbortController();
  const instanceId = randomUUID();
  const common = { service: name, node, log, clock: systemClock };
  const credentialsDirectory = options.credentialsDirectory ?? '';
  const mirror = await createMirror({
    ...common,
    url: options.redisUrl ?? '',
    credentialsDirectory,
    instanceId,
  });
  const bus = await connectBus({
    ...common,
    url: options.natsUrl,
    credentialsDirectory,
    signal: stopping.signal,
  });
  const steps: (() => Promise<void> | void)[] = [() => mirror.close(), () => bus.close()];
  const crash = async () => {
    stopping.abort();
    mirror.close();
    await bus.close();
  };
  return {
    name,
    version: '1.2.3',
    instanceId,
    config: parseConfig('', { file: 'test.toml' }),
    clock: systemClock,
    log,
    bus,
    mirror,
    metrics: createMetrics(name),
    listenFds: [],
    stopping: stopping.signal,
    readiness: () => {},
    onStop: (_step, work) => void steps.push(work),
    background: (loop, work) => {
      work.catch((error: unknown) => log.error({ loop, error }, 'a loop ended'));
    },
    lines,
    async stop() {
      stopping.abort();
      for (const step of steps.reverse()) await step();
    },
    crash,
  };
}
