// `cribus status`: what of the stack runs, from the outside; it works when nothing does.

import type { Config } from '@cribus/chassis/config.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Invocation } from '../arguments.ts';
import { createCriClient } from '../cri-client.ts';
import { currentConfig } from '../stack/generated.ts';
import { openStack, type Stack } from '../stack/open-stack.ts';
import { describeParts, type PartReport } from '../stack/part-report.ts';
import { startHint } from '../stack/start-hint.ts';
import { age, table, wrapped } from '../table.ts';

const STATUS_TIMEOUT_MS = 3_000;

interface RuntimeReport {
  readonly handlers: readonly { readonly name: string; readonly available: boolean }[];
  readonly conditions: readonly {
    readonly type: string;
    readonly status: boolean;
    readonly message: string;
  }[];
  readonly warnings: readonly string[];
}

export async function runStatus(invocation: Invocation): Promise<number> {
  const stack = await openStack(invocation);
  const config = await currentConfig(stack);
  const [parts, runtime] = await Promise.all([
    describeParts(stack, config),
    describeRuntime(config),
  ]);
  if (invocation.flags.has('json')) printJson({ stack, config, parts, runtime });
  else printText({ stack, config, parts, runtime });
  return parts.every((part) => part.state === 'running') ? 0 : 1;
}

interface Report {
  readonly stack: Stack;
  readonly config: Config;
  readonly parts: readonly PartReport[];
  readonly runtime: RuntimeReport;
}

async function describeRuntime(config: Config): Promise<RuntimeReport> {
  const configured = Object.keys(config.runtimes.handlers);
  const client = createCriClient(config.gateway.socket);
  try {
    const request = cri.StatusRequest.fromPartial({ verbose: true });
    const answer = await client.call('status', request, { timeoutMs: STATUS_TIMEOUT_MS });
    const served = answer.runtimeHandlers.map((row) => row.name).filter((name) => name !== '');
    const names = [...new Set([...configured, ...served])];
    return {
      handlers: names.map((name) => ({
        name,
        available: served.includes(name),
      })),
      conditions: (answer.status?.conditions ?? []).map(({ type, status, message }) => ({
        type,
        status,
        message,
      })),
      warnings: warningsIn(answer.info),
    };
  } catch (error) {
    if (!isFailure(error)) throw error;
    const handlers = configured.map((name) => ({ name, available: false }));
    return { handlers, conditions: [], warnings: [] };
  } finally {
    client.close();
  }
}

/** The gateway's verbose info holds the owners' sentences about this host, as a JSON array. */
export function warningsIn(info: Readonly<Record<string, string>>): string[] {
  const text = info['warnings'];
  if (text === undefined) return [];
  const value: unknown = JSON.parse(text);
  const texts = Array.isArray(value) ? value.filter((entry) => typeof entry === 'string') : [];
  return [...new Set(texts)];
}

function printJson({ stack, config, parts, runtime }: Report): void {
  const report = {
    parts: parts.map((part) => ({
      name: part.name,
      pid: part.pid ?? null,
      state: part.state,
      version: part.version,
      uptime_s: part.uptimeS ?? null,
      memory_bytes: part.memoryBytes ?? null,
    })),
    endpoint: `unix://${config.gateway.socket}`,
    root: stack.directory ?? null,
    handlers: runtime.handlers,
    conditions: runtime.conditions,
    warnings: runtime.warnings,
    metrics: Object.fromEntries(
      Object.entries(config.metrics.ports).map(([name, port]) => [
        name,
        `http://${config.metrics.address}:${port}/metrics`,
      ]),
    ),
  };
  console.log(JSON.stringify(report, undefined, 2));
}

function printText({ stack, config, parts, runtime }: Report): void {
  const rows = parts.map((part) => [
    part.name,
    part.state,
    part.version,
    part.pid === undefined ? '' : String(part.pid),
    part.uptimeS === undefined ? '' : age(part.uptimeS),
    part.memoryBytes === undefined ? '' : `${(part.memoryBytes / 1024 / 1024).toFixed(1)} MB`,
  ]);
  const head = ['PART', 'STATE', 'VERSION', 'PID', 'UPTIME', 'MEMORY'];
  for (const line of table(head, rows)) console.log(line);
  console.log('');
  console.log(`endpoint  unix://${config.gateway.socket}`);
  const handlers = runtime.handlers.map(
    ({ name, available }) => `${name}${available ? '' : ' (not available)'}`,
  );
  console.log(`handlers  ${handlers.join(', ')}`);
  for (const { type, status, message } of runtime.conditions) {
    console.log(`${type}  ${status ? 'yes' : `no: ${message}`}`);
  }
  for (const warning of runtime.warnings) {
    for (const line of wrapped(`warning   ${warning}`, ' '.repeat(10))) console.log(line);
  }
  if (parts.every(({ state }) => state === 'dead')) {
    console.log(`\nNothing of it runs: start it with "${startHint(stack)}".`);
  }
}
