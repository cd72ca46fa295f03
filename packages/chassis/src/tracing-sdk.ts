// The OpenTelemetry SDK, 20 MB of it: a file of its own so that only a service that traces loads it.

import { NodeSDK } from '@opentelemetry/sdk-node';

/** Starts exporting spans as the OTEL_* environment says; returns what flushes and ends it. */
export function startSdk(options: {
  readonly service: string;
  readonly version: string;
}): () => Promise<void> {
  // We make spans only; without these the SDK would also try to export metrics and logs.
  process.env['OTEL_METRICS_EXPORTER'] ??= 'none';
  process.env['OTEL_LOGS_EXPORTER'] ??= 'none';
  process.env['OTEL_RESOURCE_ATTRIBUTES'] = [
    `service.version=${options.version}`,
    ...(process.env['OTEL_RESOURCE_ATTRIBUTES'] ?? '').split(',').filter((pair) => pair !== ''),
  ].join(',');
  const sdk = new NodeSDK({ serviceName: options.service, instrumentations: [] });
  sdk.start();
  return () => sdk.shutdown();
}
