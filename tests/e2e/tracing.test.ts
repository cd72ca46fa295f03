// Traces: one per CRI call through every part where the standard environment asks for them, and
// nothing of OpenTelemetry's SDK in any process where it does not.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ContainerStatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, snapshotHost } from './harness/leaks.ts';
import {
  type OtlpReceiver,
  type ReceivedSpan,
  startOtlpReceiver,
} from './harness/otlp-receiver.ts';
import { pull, type RunningPod, runPod } from './harness/pods.ts';
import { memoryHolds } from './harness/process-memory.ts';
import { eventually, PROJECT_ROOT, type Stack, startStack } from './harness/stack.ts';

const SERVICES = [
  'cri-gateway',
  'image-service',
  'runtime-gvisor',
  'runtime-runc',
  'sandbox-manager',
] as const;
/** A text that is in the bundle of the SDK and in no other; checked below. */
const ONLY_IN_SDK = 'OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT';
const SERVER = 2;

describe('with OTEL_EXPORTER_OTLP_ENDPOINT', () => {
  let host = snapshotHost();
  let stack: Stack;
  let registry: TestRegistry;
  let receiver: OtlpReceiver;
  let pod: RunningPod;

  before(async () => {
    host = snapshotHost();
    receiver = await startOtlpReceiver();
    registry = await startTestRegistry();
    stack = await startStack({
      environment: {
        OTEL_EXPORTER_OTLP_ENDPOINT: receiver.endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
        OTEL_BSP_SCHEDULE_DELAY: '100',
      },
    });
    await pull(stack.cri, registry.busybox);
    const script = 'sleep 1000';
    pod = await runPod(stack, {
      ...{ image: registry.busybox, script, handler: 'gvisor', pod: { name: 'traced' } },
    });
  });

  after(async () => {
    await stack?.destroy();
    await registry?.stop();
    await receiver?.stop();
    assertNothingLeaked(host);
  });

  /** All spans of the trace that begins with this one, once they have come from these services. */
  function traceOf(root: string, services: readonly string[]): Promise<readonly ReceivedSpan[]> {
    return eventually(`a whole trace of ${root}`, async () => {
      const first = receiver.spans.find((span) => span.name === root);
      const trace = receiver.spans.filter((span) => span.traceId === first?.traceId);
      const ids = new Set(trace.map((span) => span.spanId));
      const whole = trace.every((span) => span.parentSpanId === '' || ids.has(span.parentSpanId));
      const from = new Set(trace.map((span) => span.service));
      return whole && services.every((service) => from.has(service)) && trace;
    });
  }

  it('sends one trace for one RunPodSandbox, from gateway, sandbox manager and worker', async () => {
    const trace = await traceOf('cri RunPodSandbox', [
      'cri-gateway',
      'sandbox-manager',
      'runtime-gvisor',
    ]);
    assert.equal(receiver.spans.filter(({ name }) => name === 'cri RunPodSandbox').length, 1);
    const roots = trace.filter((span) => span.parentSpanId === '');
    assert.deepEqual(
      roots.map(({ name, service }) => [name, service]),
      [['cri RunPodSandbox', 'cri-gateway']],
    );
    const served = trace.filter(({ kind }) => kind === SERVER).map(({ name }) => name);
    for (const name of ['sandbox-manager run-pod-sandbox', 'runtime.gvisor start-sandbox']) {
      assert.ok(served.includes(name), `${name} is not in ${served.join(', ')}`);
    }
    const inner = trace.map(({ name }) => name);
    assert.ok(inner.some((name) => name.startsWith('cni add ')));
    assert.ok(inner.some((name) => name.startsWith('engine ')));
    const longest = roots[0]?.durationNs ?? 0n;
    for (const { name, durationNs } of trace) {
      assert.ok(durationNs >= 0n && durationNs <= longest, `${name} took ${durationNs} ns`);
    }
  });

  it('sends one trace for one CreateContainer, to the lease of its image', async () => {
    const trace = await traceOf('cri CreateContainer', [
      'cri-gateway',
      'runtime-gvisor',
      'sandbox-manager',
      'image-service',
    ]);
    assert.ok(trace.some(({ name }) => name === 'image-service take-lease'));
    assert.equal(new Set(trace.map(({ spanId }) => spanId)).size, trace.length);
  });

  it('continues the trace that its caller began', async () => {
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const parentSpanId = 'b7ad6b7169203331';
    const traceparent = `00-${traceId}-${parentSpanId}-01`;
    const request = ContainerStatusRequest.fromPartial({
      ...{ containerId: pod.containerId, verbose: true },
    });
    await stack.cri.call('containerStatus', request, { headers: { traceparent } });
    const trace = await eventually('both spans', async () => {
      const spans = receiver.spans.filter((span) => span.traceId === traceId);
      return new Set(spans.map(({ service }) => service)).size === 2 && spans;
    });
    const [first] = trace.filter((span) => span.parentSpanId === parentSpanId);
    assert.deepEqual([first?.service, first?.name], ['cri-gateway', 'cri ContainerStatus']);
    assert.ok(trace.some(({ service }) => service === 'runtime-gvisor'));
  });

  it('has the id of the trace in the log lines of its call', async () => {
    const trace = await traceOf('cri RunPodSandbox', ['sandbox-manager']);
    const log = readFileSync(join(stack.root, 'log', 'sandbox-manager.log'), 'utf8');
    const line = log
      .split('\n')
      .filter((text) => text.includes('"verb":"run-pod-sandbox"') && text.includes(pod.podId))
      .map((text) => JSON.parse(text) as Record<string, unknown>)[0];
    assert.equal(line?.['trace_id'], trace[0]?.traceId);
  });

  it('sends traces and nothing else', () => {
    assert.deepEqual([...new Set(receiver.requests)], ['/v1/traces']);
  });

  it('has the SDK in each process, which shows that the search below would find it', async () => {
    for (const service of SERVICES) {
      assert.ok(memoryHolds(await stack.pidOf(service), ONLY_IN_SDK), service);
    }
  });
});

describe('without the OTEL_* environment', () => {
  it('loads nothing of the SDK into any service, whatever it does', async () => {
    const bundles = readdirSync(join(PROJECT_ROOT, 'dist'));
    const holding = bundles.filter((name) =>
      readFileSync(join(PROJECT_ROOT, 'dist', name), 'latin1').includes(ONLY_IN_SDK),
    );
    assert.deepEqual(holding, ['tracing-sdk.mjs']);

    const host = snapshotHost();
    const registry = await startTestRegistry();
    const stack = await startStack();
    try {
      await pull(stack.cri, registry.busybox);
      for (const handler of ['runc', 'gvisor']) {
        await runPod(stack, { image: registry.busybox, script: 'sleep 1000', handler });
      }
      for (const service of SERVICES) {
        const pid = await stack.pidOf(service);
        assert.ok(!memoryHolds(pid, ONLY_IN_SDK), `${service} has the SDK in its memory`);
        // It does look into the right process.
        assert.ok(memoryHolds(pid, 'cribus_bus_requests_total'), service);
        const log = readFileSync(join(stack.root, 'log', `${service}.log`), 'utf8');
        assert.ok(!log.includes('trace_id'), `${service} logs ids of traces`);
      }
    } finally {
      await stack.destroy();
      await registry.stop();
    }
    assertNothingLeaked(host);
  });
});
