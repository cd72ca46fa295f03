// A service as a process of its own: its start, its health, its end, and its traces.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DescribeRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { runtimeOwner, verbSubject } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { connect, headers } from '@nats-io/transport-node';
import { after, afterEach, before, beforeEach, describe, it } from 'mocha';
import { createTestService, type TestService } from './testing/fake-service.ts';
import { createNatsServer, freePort, type TestServer } from './testing/servers.ts';
import { tracingWanted } from './tracing.ts';

const ECHO = runtimeOwner('echo');
const FIXTURE = fileURLToPath(new URL('./testing/echo-service.ts', import.meta.url));

interface Running {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  stdout: string;
  stderr: string;
}

describe('runService', () => {
  let nats: TestServer;
  let directory: string;
  let port: number;
  const running: Running[] = [];
  const services: TestService[] = [];

  before(async () => {
    nats = await createNatsServer();
    await nats.start();
  });
  after(() => nats.close());
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'chassis service '));
    port = await freePort();
  });
  afterEach(async () => {
    for (const one of services.splice(0)) await one.stop();
    for (const one of running.splice(0)) {
      one.child.kill('SIGKILL');
      await one.exited;
    }
    await rm(directory, { recursive: true, force: true });
  });

  async function start(config: string, env: Record<string, string> = {}): Promise<Running> {
    const file = join(directory, 'c.toml');
    await writeFile(file, config);
    const args = [FIXTURE, '--config', file, '--root', directory];
    const child = spawn(process.execPath, args, { env: { ...process.env, ...env } });
    const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
    const one: Running = { child, exited, stdout: '', stderr: '' };
    child.stdout?.on('data', (chunk) => {
      one.stdout += chunk;
    });
    child.stderr?.on('data', (chunk) => {
      one.stderr += chunk;
    });
    running.push(one);
    return one;
  }
  const config = () => `[nats]\nurl = "${nats.url}"\n[metrics.ports]\nruntime-runc = ${port}\n`;

  async function get(path: string): Promise<{ status: number; text: string }> {
    try {
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      return { status: response.status, text: await response.text() };
    } catch {
      return { status: 0, text: '' };
    }
  }
  async function until(path: string, status: number): Promise<string> {
    const limit = systemClock.timeout(10_000);
    for (;;) {
      const answer = await get(path);
      if (answer.status === status) return answer.text;
      await systemClock.sleep(30, limit);
    }
  }
  async function ask(id: string) {
    const [asker = await createTestService({ natsUrl: nats.url, name: 'cri-gateway' })] = services;
    if (!services.includes(asker)) services.push(asker);
    const options = { owner: ECHO, signal: systemClock.timeout(8_000), requestId: 'r' };
    return (await asker.bus.ask('describe', { id }, options)).result.info;
  }

  it('serves health and metrics, finishes what runs on SIGTERM, and exits 0', async () => {
    const one = await start(config());
    await until('/readyz', 200);
    assert.equal((await get('/healthz')).status, 200);
    assert.deepEqual(await ask('a'), { id: 'a', epoch: '1' });
    const metrics = (await get('/metrics')).text;
    assert.match(metrics, /cribus_verb_requests_total\{[^}]*verb="describe"[^}]*kind="ok"/);
    assert.match(metrics, /cribus_connected\{to="nats",service="runtime-runc"\} 1/);
    assert.match(metrics, /process_resident_memory_bytes/);
    const slow = ask('slow');
    await systemClock.sleep(200);
    one.child.kill('SIGTERM');
    assert.equal((await slow)['id'], 'slow');
    assert.equal(await one.exited, 0);
    assert.equal(one.stderr, '');
  });

  it('tells the service manager when it is ready, that it lives, and when it ends', async () => {
    const path = join(directory, 'notify');
    const receiver = spawn('perl', ['-e', RECEIVE, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const said: string[] = [];
    const heard = (state: string, times = 1) =>
      new Promise<void>((resolve) => {
        const look = () => {
          if (said.filter((each) => each === state).length >= times) resolve();
        };
        receiver.stdout.on('data', look);
        look();
      });
    receiver.stdout.on('data', (chunk) => said.push(...String(chunk).trim().split('\n')));
    try {
      await heard('bound');
      const one = await start(config(), { NOTIFY_SOCKET: path, WATCHDOG_USEC: '100000' });
      await heard('WATCHDOG=1', 3);
      one.child.kill('SIGTERM');
      await heard('STOPPING=1');
      assert.equal(said[1], 'READY=1');
    } finally {
      receiver.kill();
    }
  });

  it('raises its epoch at each start', async () => {
    const first = await start(config());
    await until('/readyz', 200);
    first.child.kill('SIGKILL');
    await first.exited;
    await start(config());
    await until('/readyz', 200);
    assert.equal((await ask('a'))['epoch'], '2');
  });

  it('says in one line what is wrong with its configuration, and exits 1', async () => {
    const one = await start('[log]\nlevel = "loud"');
    assert.equal(await one.exited, 1);
    assert.match(
      one.stderr,
      /^runtime-runc: .*c\.toml: log\.level = "loud": must be one of [^\n]*\n$/,
    );
  });

  it('waits for NATS, alive but not ready, and still ends when told to', async () => {
    await nats.kill();
    const one = await start(config());
    const text = await until('/readyz', 503);
    assert.deepEqual(JSON.parse(text).checks, { started: false, nats: false });
    assert.equal((await get('/healthz')).status, 200);
    await nats.start();
    await until('/readyz', 200);
    await nats.kill();
    await until('/readyz', 503);
    one.child.kill('SIGTERM');
    assert.equal(await one.exited, 0);
    const other = await start(config());
    await until('/readyz', 503);
    other.child.kill('SIGTERM');
    assert.equal(await other.exited, 0);
    await nats.start();
  });

  it('logs an error that nobody caught as a bug, and ends with 1', async () => {
    const one = await start(config());
    await until('/readyz', 200);
    await ask('hang up').catch(() => undefined);
    assert.equal(await one.exited, 1);
    assert.match(one.stdout, /nobody caught me/);
  });

  it('continues the trace of its asker, and sends spans where the environment says', async () => {
    const bodies: Buffer[] = [];
    const collector = createServer((request, response) => {
      request.on('data', (chunk) => bodies.push(chunk));
      request.on('end', () => response.end());
    });
    await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
    const address = collector.address();
    const collectorPort = typeof address === 'object' ? address?.port : 0;
    const one = await start(`${config()}[log]\nlevel = "debug"\n`, {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collectorPort}`,
    });
    await until('/readyz', 200);
    const traceId = randomBytes(16);
    const connection = await connect({ servers: nats.url });
    const traced = headers();
    traced.set('traceparent', `00-${traceId.toString('hex')}-${'1'.repeat(16)}-01`);
    const data = DescribeRequest.encode({ id: 'refuse' }).finish();
    const subject = verbSubject('node', ECHO, 'describe');
    await connection.request(subject, data, { headers: traced, timeout: 5_000 });
    await connection.close();
    one.child.kill('SIGTERM');
    assert.equal(await one.exited, 0);
    collector.close();
    const sent = Buffer.concat(bodies);
    assert.ok(sent.includes(traceId), 'the span is not of the trace of its asker');
    assert.match(sent.toString('latin1'), /runtime\.echo describe[\s\S]*not_found/);
    assert.ok(one.stdout.includes(`"trace_id":"${traceId.toString('hex')}"`));
  });

  it('traces only where the environment asks for it', () => {
    const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' };
    assert.equal(tracingWanted({}), false);
    assert.equal(tracingWanted(endpoint), true);
    assert.equal(tracingWanted({ OTEL_TRACES_EXPORTER: 'console' }), true);
    assert.equal(tracingWanted({ ...endpoint, OTEL_TRACES_EXPORTER: 'none' }), false);
    assert.equal(tracingWanted({ ...endpoint, OTEL_SDK_DISABLED: 'TRUE' }), false);
  });
});

/** Node has no unix datagrams; perl, which every Debian has, prints what it gets. */
const RECEIVE = `
use Socket; $| = 1;
socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die; bind($s, sockaddr_un($ARGV[0])) or die $!;
print "bound\\n"; while (defined recv($s, my $data, 4096, 0)) { print "$data\\n" }
`;
