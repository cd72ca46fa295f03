// The TCP ports of a stack: chosen once, persisted, and used again at the next start.

import { createServer } from 'node:net';
import { Failure } from '@cribus/contracts/failure.ts';
import { SERVICES } from './services.ts';

export interface Ports {
  readonly nats: number;
  readonly streaming: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** Below Linux' default ephemeral range (32768 to 60999), so that no outgoing connection takes one. */
const FIRST_PORT = 20_000;
const PORT_COUNT = 12_000;

export interface PortPlan {
  readonly ports: Ports;
  /** Names of ports that had to move because somebody else uses the old number. */
  readonly moved: readonly string[];
}

export interface PortQuestion {
  /** Ports that the configuration fixes, by name; they are taken as they are. */
  readonly fixed: Readonly<Record<string, number>>;
  /** From the last start. */
  readonly previous: Ports | undefined;
  /** Names whose previous port is held by a living part of this very stack. */
  readonly ours: ReadonlySet<string>;
  /** Where to begin to look; differs between stacks, so that they seldom meet. */
  readonly seed: number;
  readonly isFree: (port: number) => Promise<boolean>;
}

/** Names of all ports: `nats`, `streaming`, and each service for its metrics. */
export const PORT_NAMES: readonly string[] = ['nats', 'streaming', ...SERVICES];

/** Chooses a port for each name. Raises limit when none is free. */
export async function planPorts(question: PortQuestion): Promise<PortPlan> {
  const chosen = new Map<string, number>();
  const taken = new Set<number>();
  const old = new Set(PORT_NAMES.map((name) => portOf(question.previous, name)));
  const moved: string[] = [];
  for (const name of PORT_NAMES) {
    const fixed = question.fixed[name] ?? 0;
    const previous = portOf(question.previous, name);
    const usable =
      fixed !== 0 ||
      (previous !== undefined &&
        !taken.has(previous) &&
        (question.ours.has(name) || (await question.isFree(previous))));
    if (!usable && previous !== undefined) moved.push(name);
    const kept = fixed !== 0 ? fixed : previous;
    const port =
      usable && kept !== undefined
        ? kept
        : await nextFree(question, (other) => taken.has(other) || old.has(other));
    taken.add(port);
    chosen.set(name, port);
  }
  const metrics = Object.fromEntries(SERVICES.map((name) => [name, chosen.get(name) ?? 0]));
  const ports = { nats: chosen.get('nats') ?? 0, streaming: chosen.get('streaming') ?? 0, metrics };
  return { ports, moved };
}

/** The port with one of PORT_NAMES. */
export function portOf(ports: Ports | undefined, name: string): number | undefined {
  if (name === 'nats') return ports?.nats;
  if (name === 'streaming') return ports?.streaming;
  return ports?.metrics[name];
}

async function nextFree(
  question: PortQuestion,
  isTaken: (port: number) => boolean,
): Promise<number> {
  for (let step = 0; step < PORT_COUNT; step += 1) {
    const port = FIRST_PORT + ((question.seed + step) % PORT_COUNT);
    if (!isTaken(port) && (await question.isFree(port))) return port;
  }
  const last = FIRST_PORT + PORT_COUNT - 1;
  throw new Failure('limit', `no TCP port from ${FIRST_PORT} to ${last} is free on this host`);
}

/** True if a port of this address can be listened on right now. */
export function isPortFree(port: number, address: string): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => done(true)));
  });
}

/** Reads ports.json; undefined for anything that isn't one, since ports can always be chosen anew. */
export function parsePorts(text: string): Ports | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { nats, streaming, metrics } = value as Partial<Ports>;
  const numbers = [nats, streaming, ...SERVICES.map((name) => metrics?.[name])];
  return numbers.every((port) => Number.isInteger(port)) ? (value as Ports) : undefined;
}
