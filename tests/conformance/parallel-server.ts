// What lets several processes of critest share its specs: the meeting point that the ginkgo command
// is for them otherwise, by ginkgo's HTTP protocol (GINKGO_PARALLEL_PROTOCOL=HTTP). Each process takes
// the next spec from a counter; the first one waits for the others, runs what must run alone, and
// writes the report of all.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** ginkgo's types.Report, as far as reports are merged. */
interface Report {
  readonly SuiteSucceeded: boolean;
  readonly SpecialSuiteFailureReasons: readonly string[] | null;
  readonly SpecReports: readonly unknown[] | null;
}

export interface ParallelServer {
  /** As http://127.0.0.1:40123. */
  readonly address: string;
  /** One of the processes has ended; numbered from 1. */
  ended(process: number): void;
  close(): void;
}

const BODY_BYTES_MAX = 256 * 1024 * 1024;
const OK = 200;
const TOO_EARLY = 425;
const GONE = 410;

interface State {
  readonly alive: Set<number>;
  readonly reports: Report[];
  readonly total: number;
  counter: number;
  aborted: boolean;
  /** What the first process said of its set-up, for the others. */
  beforeSuite: string | undefined;
  reportBeforeSuite: string | undefined;
}

/** Listens on loopback for `total` processes; `output` gets what they print. */
export async function startParallelServer(
  total: number,
  output: (text: Buffer) => void,
): Promise<ParallelServer> {
  const state: State = {
    alive: new Set(Array.from({ length: total }, (_, index) => index + 1)),
    reports: [],
    total,
    counter: 0,
    aborted: false,
    beforeSuite: undefined,
    reportBeforeSuite: undefined,
  };
  const server = createServer((request, response) => {
    void readBody(request).then((body) => {
      if (request.url === '/emit-output') output(body);
      answer(
        response,
        request.method === 'GET' ? get(state, request.url) : post(state, request.url, body),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${port}`,
    ended: (process) => state.alive.delete(process),
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

interface Answer {
  readonly status: number;
  readonly body?: string;
}

function get(state: State, path: string | undefined): Answer {
  switch (path) {
    case '/up':
      return { status: OK };
    case '/abort':
      return { status: state.aborted ? GONE : OK };
    case '/counter': {
      const Index = state.counter;
      state.counter += 1;
      return { status: OK, body: JSON.stringify({ Index }) };
    }
    case '/before-suite-state':
      return fromFirst(state, state.beforeSuite);
    case '/report-before-suite-state':
      return fromFirst(state, state.reportBeforeSuite);
    case '/have-nonprimary-procs-finished':
      return { status: othersEnded(state) ? OK : TOO_EARLY };
    case '/aggregated-nonprimary-procs-report':
      if (!othersEnded(state)) return { status: TOO_EARLY };
      if (state.reports.length !== state.total - 1) return { status: GONE };
      return { status: OK, body: JSON.stringify(state.reports.reduce(merge)) };
    default:
      return { status: 404 };
  }
}

function post(state: State, path: string | undefined, body: Buffer): Answer {
  switch (path) {
    case '/abort':
      state.aborted = true;
      break;
    case '/before-suite-completed':
      state.beforeSuite = body.toString();
      break;
    case '/report-before-suite-completed':
      state.reportBeforeSuite = body.toString();
      break;
    case '/suite-did-end':
      state.reports.push(JSON.parse(body.toString()) as Report);
      break;
    default:
  }
  return { status: OK };
}

function fromFirst(state: State, said: string | undefined): Answer {
  if (said !== undefined) return { status: OK, body: said };
  return { status: state.alive.has(1) ? TOO_EARLY : GONE };
}

function othersEnded(state: State): boolean {
  return [...state.alive].every((process) => process === 1);
}

function merge(one: Report, other: Report): Report {
  return {
    ...one,
    SuiteSucceeded: one.SuiteSucceeded && other.SuiteSucceeded,
    SpecialSuiteFailureReasons: [
      ...new Set([
        ...(one.SpecialSuiteFailureReasons ?? []),
        ...(other.SpecialSuiteFailureReasons ?? []),
      ]),
    ],
    SpecReports: [...(one.SpecReports ?? []), ...(other.SpecReports ?? [])],
  };
}

function answer(response: ServerResponse, { status, body }: Answer): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(body);
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error('a report of critest is over 256 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
