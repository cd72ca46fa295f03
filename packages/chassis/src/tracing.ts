// Spans by the OpenTelemetry API, which costs next to nothing while no SDK is loaded; the SDK comes
// from tracing-sdk.ts, only when the standard OTEL_* environment asks for traces.

import {
  context,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { Logger } from './log.ts';

const TRACER = 'cribus';

export interface SpanOptions {
  readonly kind: 'server' | 'client' | 'internal';
  readonly attributes?: Readonly<Record<string, string | number | boolean>>;
  /** Reads a header of the message that caused this; its trace is continued. */
  readonly carrier?: (name: string) => string;
}

const KINDS = {
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  internal: SpanKind.INTERNAL,
} as const;

/** Runs work inside a span that ends with it; a rejection marks the span and is passed on. */
export async function withSpan<T>(
  name: string,
  options: SpanOptions,
  work: () => Promise<T>,
): Promise<T> {
  const { carrier } = options;
  const parent =
    carrier === undefined
      ? context.active()
      : propagation.extract(ROOT_CONTEXT, carrier, {
          get: (read, key) => read(key) || undefined,
          keys: () => ['traceparent', 'tracestate'],
        });
  const span = trace
    .getTracer(TRACER)
    .startSpan(name, { kind: KINDS[options.kind], attributes: options.attributes ?? {} }, parent);
  try {
    return await context.with(trace.setSpan(parent, span), work);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    span.setStatus({ code: SpanStatusCode.ERROR, message });
    throw error;
  } finally {
    span.end();
  }
}

/** Adds an attribute to the span that is running, if one is. */
export function setSpanAttribute(name: string, value: string | number | boolean): void {
  trace.getActiveSpan()?.setAttribute(name, value);
}

/** Hands out the headers (W3C Trace Context) that continue the running trace elsewhere. */
export function injectTrace(set: (name: string, value: string) => void): void {
  propagation.inject(context.active(), set, { set: (write, key, value) => write(key, value) });
}

/** The id of the running trace; undefined when none is recorded. */
export function activeTraceId(): string | undefined {
  const spanContext = trace.getActiveSpan()?.spanContext();
  return spanContext !== undefined && trace.isSpanContextValid(spanContext)
    ? spanContext.traceId
    : undefined;
}

/** True when the environment asks for traces (OpenTelemetry's environment variable specification). */
export function tracingWanted(env: Readonly<Record<string, string | undefined>>): boolean {
  if (env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') return false;
  const exporter = env['OTEL_TRACES_EXPORTER'] ?? '';
  if (exporter === 'none') return false;
  return (
    exporter !== '' ||
    (env['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? '') !== '' ||
    (env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] ?? '') !== ''
  );
}

/** Starts the SDK where it is wanted; returns what flushes and ends it. A failure is only logged. */
export async function startTracing(options: {
  readonly service: string;
  readonly version: string;
  readonly log: Logger;
}): Promise<() => Promise<void>> {
  if (!tracingWanted(process.env)) return async () => undefined;
  // Not a literal: a bundler must leave it as a file of its own.
  const file = import.meta.url.endsWith('.ts') ? './tracing-sdk.ts' : './tracing-sdk.mjs';
  try {
    const sdk: typeof import('./tracing-sdk.ts') = await import(
      new URL(file, import.meta.url).href
    );
    return sdk.startSdk({ service: options.service, version: options.version });
  } catch (error) {
    options.log.error({ error }, 'tracing is wanted but its SDK could not be started');
    return async () => undefined;
  }
}
