// The command line: which commands there are, which options each takes, and the one sentence that a
// person gets for anything else.

import { type ParseArgsConfig, parseArgs } from 'node:util';

/** A mistake on the command line: the sentence is printed with the usage, and the exit code is 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly command: CommandName | undefined;

  constructor(message: string, command?: CommandName) {
    super(message);
    this.command = command;
  }
}

interface CommandRow {
  readonly usage: string;
  readonly summary: string;
  readonly options: Readonly<Record<string, 'string' | 'boolean'>>;
  /** Names of the arguments, all of which must be given. */
  readonly operands: readonly string[];
}

/** Options that every command understands. */
const COMMON = { root: 'string', config: 'string', help: 'boolean' } as const;

export const COMMANDS = {
  up: {
    usage:
      'up [--root DIR] [--config FILE] [--detach] [--ephemeral] [--tour] [--nats URL] [--redis URL]',
    summary: 'start the runtime and serve CRI until Ctrl-C; containers outlive it',
    options: {
      detach: 'boolean',
      ephemeral: 'boolean',
      tour: 'boolean',
      nats: 'string',
      redis: 'string',
    },
    operands: [],
  },
  down: {
    usage: 'down [--root DIR] [--pods]',
    summary: 'stop it; with --pods its pods too, and put the host back as it was',
    options: { pods: 'boolean' },
    operands: [],
  },
  prepare: {
    usage: 'prepare [--root DIR] [--config FILE] [--wait]',
    summary: 'write what services of a service manager need; --wait for given servers without end',
    options: { wait: 'boolean' },
    operands: [],
  },
  status: {
    usage: 'status [--root DIR] [--json]',
    summary: 'each part with its state, version, pid, uptime and memory',
    options: { json: 'boolean' },
    operands: [],
  },
  doctor: {
    usage: 'doctor [--root DIR] [--fix [--yes]]',
    summary: 'check the host and the stack, and say what to do; with --fix clean up after a crash',
    options: { fix: 'boolean', yes: 'boolean' },
    operands: [],
  },
  tour: {
    usage: 'tour [--root DIR] [--image REF]',
    summary: 'run one image under runc and under gVisor, and show both kernels',
    options: { image: 'string' },
    operands: [],
  },
  ps: {
    usage: 'ps [--root DIR] [-a|--all]',
    summary: 'list containers, as crictl ps does',
    options: { all: 'boolean' },
    operands: [],
  },
  pods: {
    usage: 'pods [--root DIR]',
    summary: 'list pods, as crictl pods does',
    options: {},
    operands: [],
  },
  images: {
    usage: 'images [--root DIR]',
    summary: 'list images, as crictl images does',
    options: {},
    operands: [],
  },
  pull: {
    usage: 'pull [--root DIR] REF',
    summary: 'pull an image',
    options: {},
    operands: ['REF'],
  },
  config: {
    usage: 'config [--root DIR] [--config FILE]',
    summary: 'print the effective configuration',
    options: {},
    operands: [],
  },
  version: { usage: 'version', summary: 'print the version', options: {}, operands: [] },
  help: { usage: 'help', summary: 'print this', options: {}, operands: [] },
} as const satisfies Record<string, CommandRow>;

export type CommandName = keyof typeof COMMANDS;

export interface Invocation {
  readonly command: CommandName;
  readonly root: string | undefined;
  readonly config: string | undefined;
  readonly flags: ReadonlySet<string>;
  readonly values: Readonly<Record<string, string>>;
  readonly operands: readonly string[];
}

const ALIASES: ReadonlyMap<string, CommandName> = new Map([
  ['--help', 'help'],
  ['-h', 'help'],
  ['--version', 'version'],
]);

/** Reads the words after the program's name. Raises UsageError. */
export function parseCommandLine(words: readonly string[]): Invocation {
  const [first = 'help', ...rest] = words;
  const name = ALIASES.get(first) ?? first;
  if (!isCommand(name)) throw new UsageError(noCommandSentence(name));
  const row: CommandRow = COMMANDS[name];
  const { values, positionals } = parseOptions(name, row, rest);
  const flags = new Set<string>();
  const texts: Record<string, string> = {};
  for (const [key, value] of Object.entries(values)) {
    if (value === true) flags.add(key);
    else if (typeof value === 'string') texts[key] = requireText(name, key, value);
  }
  if (flags.has('help')) return invocation('help', { flags, texts, operands: [] });
  if (positionals.length !== row.operands.length) {
    throw new UsageError(operandsSentence(name, row.operands, positionals), name);
  }
  return invocation(name, { flags, texts, operands: positionals });
}

function invocation(
  command: CommandName,
  parts: { flags: Set<string>; texts: Record<string, string>; operands: readonly string[] },
): Invocation {
  const { root, config, ...values } = parts.texts;
  return { command, root, config, flags: parts.flags, values, operands: parts.operands };
}

function noCommandSentence(name: string): string {
  const near = Object.keys(COMMANDS).find((command) => isNear(name, command));
  const hint = near === undefined ? '' : `; did you mean "${near}"?`;
  return `There is no command "${name}"${hint || '.'}`;
}

/** One letter too many, too few or wrong, or two that changed places. */
function isNear(typed: string, meant: string): boolean {
  let same = 0;
  while (same < typed.length && typed[same] === meant[same]) same += 1;
  const [a, b] = [typed.slice(same), meant.slice(same)];
  const swapped = `${b[1] ?? ''}${b[0] ?? ''}${b.slice(2)}`;
  return (
    [b, swapped].includes(a) || a.slice(1) === b || a === b.slice(1) || a.slice(1) === b.slice(1)
  );
}

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

function parseOptions(name: CommandName, row: CommandRow, args: readonly string[]) {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const [key, type] of Object.entries({ ...COMMON, ...row.options })) {
    options[key] = key === 'all' ? { type, short: 'a' } : { type };
    if (key === 'help') options[key] = { type, short: 'h' };
  }
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    // Node's sentences end in hints about its own syntax; the first one says what is wrong.
    const sentence = (error.message.split('. ')[0] ?? error.message).split('\n')[0] ?? '';
    throw new UsageError(`cribus ${name}: ${sentence.replace(/\.?$/, '.')}`, name);
  }
}

function requireText(name: CommandName, key: string, value: string): string {
  if (value === '') throw new UsageError(`cribus ${name}: option --${key} is empty.`, name);
  return value;
}

function operandsSentence(
  name: CommandName,
  wanted: readonly string[],
  given: readonly string[],
): string {
  if (given.length < wanted.length) {
    return `cribus ${name} needs ${wanted.slice(given.length).join(' ')}.`;
  }
  return `cribus ${name} takes no argument "${given[wanted.length]}".`;
}

/** What `cribus help` prints. */
export function usageText(): string {
  const rows = Object.values<CommandRow>(COMMANDS).flatMap((row) => [
    // The longest one takes two lines of 100 columns.
    `  cribus ${row.usage.replace(' [--nats', '\n      [--nats')}`,
    `      ${row.summary}`,
  ]);
  return [
    'cribus: a Kubernetes container runtime (CRI v1) made of separate services.',
    '',
    ...rows,
    '',
    'Every command takes --root DIR: the stack whose socket, state, logs and configuration are all',
    'below DIR. Without it they are in /run/cribus, /var/lib/cribus, /var/log/cribus, /etc/cribus.',
    'Exit codes: 0 done; 1 it failed, or for status: a part is not running; 2 wrong command line;',
    '130 interrupted by Ctrl-C before it was done.',
  ].join('\n');
}
