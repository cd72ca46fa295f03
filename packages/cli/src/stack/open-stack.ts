// A stack as the command line names it: its configuration and every path. Reads, changes nothing.

import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import { type Config, parseConfig } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  handlerPaths,
  SOCKET_PATH_BYTES_MAX,
  type StackPaths,
  stackPaths,
} from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
import { readFileIfExists } from '@cribus/host/files.ts';

export interface Stack {
  /** `--root`, absolute; undefined for the system's own stack. */
  readonly directory: string | undefined;
  /** As the person wrote it, with defaults; what `up` chooses is not in it. */
  readonly config: Config;
  readonly paths: StackPaths;
  /** 8 hex digits that tell stacks of one machine apart: names of bridges, cgroups, networks. */
  readonly tag: string;
}

/**
 * Reads the stack's configuration: FILE, or `cribus.toml` of the stack where it exists. Raises
 * invalid_argument for a wrong one, a missing FILE, or a root whose sockets would be too long.
 */
export async function openStack(options: {
  readonly root: string | undefined;
  readonly config: string | undefined;
}): Promise<Stack> {
  const directory = options.root === undefined ? undefined : resolve(options.root);
  if (directory !== undefined) refuseCharacters(directory);
  const file = options.config === undefined ? undefined : resolve(options.config);
  const config = await readConfig(file, directory);
  const paths = stackPaths(config.roots);
  refuseLongSockets(config, paths);
  return { directory, config, paths, tag: stackTag(config.roots.state) };
}

/** The first 8 hex digits of SHA-256 over the state directory. */
export function stackTag(stateDirectory: string): string {
  return createHash('sha256').update(stateDirectory).digest('hex').slice(0, 8);
}

async function readConfig(file: string | undefined, directory: string | undefined) {
  if (file !== undefined) {
    const text = await readFileIfExists(file);
    if (text === undefined) {
      throw new Failure('invalid_argument', `--config ${file}: there is no such file`);
    }
    return parseConfig(text.toString('utf8'), { file, directory });
  }
  const usual = join(
    directory === undefined ? '/etc/cribus' : join(directory, 'etc'),
    'cribus.toml',
  );
  const text = await readFileIfExists(usual);
  return parseConfig(text?.toString('utf8') ?? '', { file: usual, directory });
}

function refuseCharacters(directory: string): void {
  const refuse = (what: string) => {
    throw new Failure('invalid_argument', `--root ${JSON.stringify(directory)}: ${what}`);
  };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is control characters we refuse.
  if (/[\x00-\x1f\x7f]/.test(directory)) refuse('the path must not contain control characters');
  // runc lists the namespaces that it joins with commas between them (libcontainer's nsenter), and
  // runsc finds a sandbox's state by a file pattern.
  if (/[,\\*?[]/.test(directory)) refuse('runc and runsc take no path that contains , \\ * ? or [');
}

function refuseLongSockets(config: Config, paths: StackPaths): void {
  const sockets = [
    config.gateway.socket,
    paths.redisSocket,
    paths.removalSocket,
    ...Object.keys(config.runtimes.handlers).map(
      (handler) => handlerPaths(config.roots, subjectToken(handler)).sessionSocket,
    ),
  ];
  for (const socket of sockets) {
    const over = Buffer.byteLength(socket) - SOCKET_PATH_BYTES_MAX;
    if (over <= 0) continue;
    throw new Failure(
      'invalid_argument',
      `the socket ${socket} would be ${over} bytes longer than the ${SOCKET_PATH_BYTES_MAX} that ` +
        'Linux allows: choose a shorter --root',
    );
  }
}
