// The command line of `pnpm conformance`.

import { parseArgs } from 'node:util';

export const HANDLERS = ['runc', 'crun', 'gvisor'] as const;
export type Handler = (typeof HANDLERS)[number];

export interface Options {
  /** In the order in which they run. */
  readonly handlers: readonly Handler[];
  /** Processes of critest that share the specs. */
  readonly parallel: number;
  /** Streams by WebSocket instead of SPDY. */
  readonly websocket: boolean;
  /** Times that each handler's specs are run, on one stack. */
  readonly runs: number;
  /** A regular expression (Go) of the specs to run; empty: all. */
  readonly focus: string;
  readonly writeDocs: boolean;
  /** Where critest's logs and reports are kept; undefined: nowhere. */
  readonly keep: string | undefined;
}

export const USAGE = `usage: pnpm conformance [handler…] [options]
  handler       ${HANDLERS.join(', ')} (default: all three)
  --parallel N  share the specs among N processes (default 1)
  --websocket   stream by WebSocket instead of SPDY
  --runs N      run the specs N times on one stack (default 1)
  --focus RE    only the specs whose name matches
  --keep DIR    keep critest's logs and JUnit reports there
  --write-docs  write docs/conformance.md from the outcome (all handlers, all specs)`;

const PARALLEL_MAX = 16;
const RUNS_MAX = 100;

/** Raises an Error whose message is for a person. */
export function parseOptions(args: readonly string[]): Options {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      parallel: { type: 'string', default: '1' },
      websocket: { type: 'boolean', default: false },
      runs: { type: 'string', default: '1' },
      focus: { type: 'string', default: '' },
      keep: { type: 'string' },
      'write-docs': { type: 'boolean', default: false },
    },
  });
  const unknown = positionals.find((name) => !isHandler(name));
  if (unknown !== undefined) {
    throw new Error(`There is no handler "${unknown}": ${HANDLERS.join(', ')}.`);
  }
  const named = positionals.filter(isHandler);
  const options = {
    handlers: named.length === 0 ? HANDLERS : [...new Set(named)],
    parallel: count('--parallel', values.parallel, PARALLEL_MAX),
    websocket: values.websocket,
    runs: count('--runs', values.runs, RUNS_MAX),
    focus: values.focus,
    writeDocs: values['write-docs'],
    keep: values.keep,
  };
  if (options.writeDocs && (options.handlers.length < HANDLERS.length || options.focus !== '')) {
    throw new Error('--write-docs needs every handler and every spec.');
  }
  return options;
}

function isHandler(name: string): name is Handler {
  return (HANDLERS as readonly string[]).includes(name);
}

function count(option: string, text: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new Error(`${option} ${text}: 1 to ${max}.`);
  }
  return value;
}
