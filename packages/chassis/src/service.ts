// What every service is: configuration read once, logs, metrics and health over HTTP, the bus, Redis,
// traces where they are asked for, and an orderly end.

import { randomUUID } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { type Clock, systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { readServiceManager, type ServiceManager } from '@cribus/host/service-manager.ts';
import { observeAsks } from './bus/observe-asks.ts';
import { type Bus, connectBus } from './bus.ts';
import { type Config, parseConfig } from './config.ts';
import { startHealth } from './health.ts';
import { keepMemorySmall } from './idle-memory.ts';
import { createLogger, type Logger } from './log.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { createMirror, type StateMirror } from './mirror.ts';
import { startTracing } from './tracing.ts';
import { VERSION } from './version.ts';

export type ServiceName =
  | 'cri-gateway'
  | 'image-service'
  | 'sandbox-manager'
  | 'runtime-runc'
  | 'runtime-gvisor';

export interface Service {
  readonly name: ServiceName;
  readonly version: string;
  /** New at each start. */
  readonly instanceId: string;
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly bus: Bus;
  readonly mirror: StateMirror;
  readonly metrics: Metrics;
  /** Listening sockets that the service manager opened for this service. */
  readonly listenFds: readonly number[];
  /** Aborts when the service is told to end. */
  readonly stopping: AbortSignal;
  /** Part of /readyz: every named check must be true. */
  readiness(name: string, check: () => boolean): void;
  /** Runs at the end, last registered first, each with at most ten seconds. */
  onStop(step: string, work: () => Promise<void> | void): void;
  /** A loop of the service's own: a rejection is logged as a bug and ends the service. */
  background(name: string, work: Promise<unknown>): void;
}

/** Each step at the end has so long, so that one that hangs doesn't keep the others from running. */
const STOP_STEP_MS = 10_000;

/**
 * Starts a service from `--config FILE` (and `--root DIR`) in process.argv: runs `start`, then serves
 * until SIGTERM or SIGINT, then drains and exits 0. A failure to start is one clear line on stderr
 * and exit code 1. A NATS that can't be reached is none: the service waits for it, alive but not
 * ready. A bug (an uncaught error, a background loop that rejects) is logged and ends it with 1.
 */
export async function runService(
  name: ServiceName,
  start: (service: Service) => Promise<void>,
): Promise<void> {
  let run: Run | undefined;
  try {
    run = await prepare(name);
    await connectAndStart(run, start);
  } catch (error) {
    if (run?.stopping.signal.aborted !== true) {
      run?.log.error({ error }, 'the service could not start');
      process.stderr.write(`${name}: ${oneLine(error)}\n`);
      await run?.end(1);
      process.exit(1);
    }
  }
}

/** A service on its way from its configuration to its end. */
interface Run {
  readonly name: ServiceName;
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly checks: Map<string, () => boolean>;
  readonly stopping: AbortController;
  readonly manager: ServiceManager;
  readonly instanceId: string;
  onStop(step: string, work: () => Promise<void> | void): void;
  /** Runs the steps, last registered first, and exits the process. */
  end(exitCode: number): Promise<void>;
}

async function prepare(name: ServiceName): Promise<Run> {
  // Brings libuv's pool of threads up before anything enters another root or namespace: the first
  // asynchronous call makes them, and they inherit what the calling thread has then.
  await stat('/');
  const config = await readConfig(process.argv.slice(2));
  const log = createLogger({ service: name, level: config.log.level });
  const metrics = createMetrics(name);
  const clock = systemClock;
  const manager = readServiceManager(process.env);
  const steps: { readonly step: string; readonly work: () => Promise<void> | void }[] = [];
  const stopping = new AbortController();
  let ending: Promise<void> | undefined;

  const end = (exitCode: number): Promise<void> => {
    ending ??= (async () => {
      tellManager(run, 'STOPPING=1');
      if (!stopping.signal.aborted) stopping.abort(new Failure('unavailable', `${name} stops`));
      for (const { step, work } of steps.reverse()) await runStep({ step, work, clock, log });
      log.info({ exit_code: exitCode }, 'stopped');
      process.exit(exitCode);
    })();
    return ending;
  };
  const run: Run = {
    name,
    config,
    clock,
    log,
    metrics,
    checks: new Map(),
    stopping,
    manager,
    instanceId: randomUUID(),
    onStop: (step, work) => void steps.push({ step, work }),
    end,
  };
  watchProcess(run);
  run.onStop('tracing', await startTracing({ service: name, version: VERSION, log }));
  const health = await startHealth({
    address: config.metrics.address,
    port: config.metrics.ports[name] ?? 0,
    registry: metrics.registry,
    checks: () => run.checks,
    clock,
    log,
    signal: stopping.signal,
  });
  run.onStop('health', () => health.close());
  run.checks.set('started', () => false);
  log.info({ version: VERSION, pid: process.pid, instance: run.instanceId }, 'starting');
  return run;
}

async function runStep(options: {
  readonly step: string;
  readonly work: () => Promise<void> | void;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<void> {
  const { step, clock, log } = options;
  const done = new AbortController();
  const late = clock.sleep(STOP_STEP_MS, done.signal).then(
    () => log.warn({ step }, 'a step of the end took too long and is left behind'),
    () => undefined,
  );
  try {
    await Promise.race([options.work(), late]);
  } catch (error) {
    log.error({ step, error }, 'a step of the end failed');
  } finally {
    done.abort();
  }
}

function watchProcess(run: Run): void {
  const onBug = (error: unknown) => {
    run.log.error({ incident: randomUUID(), error }, 'bug: an error that nobody caught');
    // State in memory can't be trusted any more; the records on disk can.
    process.exit(1);
  };
  process.on('uncaughtException', onBug);
  process.on('unhandledRejection', onBug);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      run.log.info({ signal }, 'stopping');
      run.end(0).catch(onBug);
    });
  }
}

async function connectAndStart(
  run: Run,
  start: (service: Service) => Promise<void>,
): Promise<void> {
  const { name, config, log, clock, instanceId, stopping } = run;
  const mirror = await createMirror({
    url: config.redis.url,
    credentialsDirectory: config.redis.credentials_dir,
    service: name,
    node: config.node.name,
    instanceId,
    clock,
    log,
  });
  run.onStop('redis', () => mirror.close());
  run.checks.set('nats', () => false);
  const connected = await connectBus({
    url: config.nats.url,
    node: config.node.name,
    service: name,
    credentialsDirectory: config.nats.credentials_dir,
    log,
    clock,
    signal: stopping.signal,
  });
  const bus = observeAsks(connected, { metrics: run.metrics, clock });
  run.onStop('nats', () => bus.close());
  run.checks.set('nats', () => bus.connected());
  const service: Service = {
    name,
    version: VERSION,
    instanceId,
    config,
    clock,
    log,
    bus,
    mirror,
    metrics: run.metrics,
    listenFds: run.manager.listenFds,
    stopping: stopping.signal,
    readiness: (check, isTrue) => void run.checks.set(check, isTrue),
    onStop: run.onStop,
    background(loop, work) {
      work.catch((error: unknown) => {
        if (stopping.signal.aborted) return;
        log.error({ incident: randomUUID(), loop, error }, 'bug: a loop of the service ended');
        run.end(1).catch(() => process.exit(1));
      });
    },
  };
  service.background(
    'nats',
    bus.ended.then((error) => {
      throw error ?? new Error('the connection to NATS was closed');
    }),
  );
  observeConnections(service);
  await start(service);
  run.checks.set('started', () => true);
  tellManager(run, 'READY=1');
  service.background('watchdog', feedWatchdog(run));
  service.background('memory', keepMemorySmall(clock, stopping.signal));
  log.info({}, 'started');
}

/** A manager that can't be told is no reason to end: it will find out for itself. */
function tellManager(run: Run, state: string): void {
  try {
    run.manager.notify(state);
  } catch (error) {
    run.log.warn({ error, state }, 'the service manager could not be told');
  }
}

/** Twice as often as the manager asks (sd_watchdog_enabled(3)): an event loop that hangs is told. */
async function feedWatchdog(run: Run): Promise<void> {
  const { watchdogMs } = run.manager;
  if (watchdogMs === undefined) return;
  const { signal } = run.stopping;
  while (!signal.aborted) {
    tellManager(run, 'WATCHDOG=1');
    await run.clock.sleep(watchdogMs / 2, signal).catch(() => undefined);
  }
}

function observeConnections(service: Service): void {
  service.metrics.gauge(
    'cribus_connected',
    'Whether the service is connected to NATS and to Redis: 1 or 0.',
    ['to'],
    (gauge) => {
      gauge.set({ to: 'nats' }, service.bus.connected() ? 1 : 0);
      gauge.set({ to: 'redis' }, service.mirror.connected() ? 1 : 0);
    },
  );
}

/** Raises invalid_argument with one line for a person. */
async function readConfig(args: readonly string[]): Promise<Config> {
  const options = { config: { type: 'string' }, root: { type: 'string' } } as const;
  let values: { config?: string | undefined; root?: string | undefined };
  try {
    values = parseArgs({ args: [...args], options, strict: true }).values;
  } catch (error) {
    throw new Failure('invalid_argument', `${oneLine(error)} (--config FILE [--root DIR])`);
  }
  if (values.config === undefined) {
    throw new Failure('invalid_argument', 'which configuration? --config FILE [--root DIR]');
  }
  try {
    const text = await readFile(values.config, 'utf8');
    return parseConfig(text, { file: values.config, directory: values.root });
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EACCES', 'EISDIR')) throw error;
    if (isErrno(error, 'ENOENT')) {
      throw new Failure('invalid_argument', `--config ${values.config}: there is no such file`);
    }
    throw new Failure('invalid_argument', `${values.config} can not be read: ${oneLine(error)}`);
  }
}

function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = text.replaceAll(/\s*\n\s*/g, ' ');
  return isFailure(error) || !(error instanceof Error) ? line : `${error.name}: ${line}`;
}
