// What is run, with which environment and where: command, args, env and cwd of a container.

import { posix } from 'node:path';
import type { ContainerConfig, KeyValue } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ImageConfig } from './image-config.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { SpecProcess } from './spec.ts';

/** Where programs are looked for when the image doesn't say: the search path of Debian's root. */
export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The arguments of the process. `command` replaces the image's Entrypoint and drops its Cmd; `args`
 * replaces Cmd (api.proto, ContainerConfig; Kubernetes, "Define a Command and Arguments").
 */
export function processArgs(config: ContainerConfig, image: ImageConfig, invalid: Invalid) {
  const overridden = config.command.length > 0;
  const entry = overridden ? config.command : entrypointOf(image);
  const imageArgs = overridden ? [] : (image.config.Cmd ?? []);
  const args = [...entry, ...(config.args.length > 0 ? config.args : imageArgs)];
  if (args.length === 0) {
    throw invalid('command', 'nothing to run: neither the request nor the image names a program');
  }
  if (args[0] === '') throw invalid('command', 'the program to run is an empty string');
  if (args.some((argument) => argument.includes('\0'))) {
    throw invalid('command', 'an argument holds a NUL byte');
  }
  return args;
}

/** An empty word alone is how builders write down that an inherited Entrypoint was taken away. */
function entrypointOf({ config }: ImageConfig): readonly string[] {
  const entrypoint = config.Entrypoint ?? [];
  return entrypoint.length === 1 && entrypoint[0] === '' ? [] : entrypoint;
}

export interface EnvInput {
  readonly config: ContainerConfig;
  readonly image: ImageConfig;
  /** For HOSTNAME; empty: none is set. */
  readonly hostname: string;
}

/**
 * The environment, each name once: PATH, TERM (with a terminal) and HOSTNAME as defaults, then the
 * image's, then the request's. A line of the image without '=' takes the name away.
 */
export function processEnv(input: EnvInput, invalid: Invalid): string[] {
  const env = new Map<string, string>([['PATH', DEFAULT_PATH]]);
  if (input.config.tty) env.set('TERM', 'xterm');
  if (input.hostname !== '') env.set('HOSTNAME', input.hostname);
  for (const line of input.image.config.Env ?? []) {
    const equals = line.indexOf('=');
    if (equals === -1) env.delete(line);
    else env.set(line.slice(0, equals), line.slice(equals + 1));
  }
  for (const entry of input.config.envs) env.set(...environmentEntry(entry, invalid));
  return [...env].map(([name, value]) => `${name}=${value}`);
}

// The byte order mark is kept: the value must come out as it went in.
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function environmentEntry(entry: KeyValue, invalid: Invalid): [name: string, value: string] {
  const field = `envs[${quoted(entry.key)}]`;
  if (entry.key === '') throw invalid('envs', 'a variable has an empty name');
  if (entry.key.includes('=')) throw invalid(field, "a variable's name can't hold '='");
  if (entry.key.includes('\0')) throw invalid(field, 'the name holds a NUL byte');
  if (entry.value.includes(0)) throw invalid(field, 'the value holds a NUL byte');
  try {
    return [entry.key, UTF8.decode(entry.value)];
  } catch {
    // The engine's configuration is JSON, which can't carry other bytes (runtime-spec, config.md).
    throw invalid(field, "the value isn't UTF-8, which the OCI configuration demands");
  }
}

/** The working directory: the request's, else the image's, else the root. */
export function processCwd(config: ContainerConfig, image: ImageConfig, invalid: Invalid): string {
  if (config.workingDir !== '') {
    if (!config.workingDir.startsWith('/')) {
      throw invalid('working_dir', `${quoted(config.workingDir)} is not an absolute path`);
    }
    if (config.workingDir.includes('\0')) throw invalid('working_dir', 'it holds a NUL byte');
    return posix.normalize(config.workingDir);
  }
  // An image's relative directory is meant from the root, as its builder ran it.
  return posix.resolve('/', image.config.WorkingDir ?? '');
}

/**
 * The process of an exec session: the container's own with other arguments. A session with a
 * terminal has a TERM.
 */
export function execProcess(
  container: SpecProcess,
  session: { readonly args: readonly string[]; readonly tty: boolean },
): SpecProcess {
  const hasTerm = container.env.some((line) => line.startsWith('TERM='));
  return {
    ...container,
    args: session.args,
    terminal: session.tty,
    env: session.tty && !hasTerm ? [...container.env, 'TERM=xterm'] : container.env,
  };
}
