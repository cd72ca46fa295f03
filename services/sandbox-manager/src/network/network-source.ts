// Which network new pods get: the first configuration file of the configured directory, re-read
// whenever something in the directory changed, so that one that appears wins at once.

import { accessSync, constants, readdirSync, readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { type NetworkList, parseNetworkList } from '@cribus/contracts/network-list.ts';
import { isErrno } from '@cribus/host/errno.ts';

const CONFIG_EXTENSIONS = ['.conf', '.conflist', '.json'];
/** A file larger than this is no network configuration. */
const CONFIG_BYTES_MAX = 1024 * 1024;

export interface NetworkChoice {
  readonly list: NetworkList;
  readonly file: string;
}

/** What the NetworkReady condition says. */
export interface NetworkReadiness {
  readonly ready: boolean;
  /** One word, as CRI wants it; empty when ready. */
  readonly reason: string;
  /** For a person; also names broken files while another one is used. */
  readonly message: string;
}

export interface NetworkSource {
  /** The network for a new pod. Raises unavailable with the readiness' message where there is none. */
  current(): NetworkChoice;
  /** Cheap: a directory listing and one stat per file, unless something changed. */
  readiness(): NetworkReadiness;
}

export interface NetworkSourceOptions {
  readonly directory: string;
  /** Used only while `directory` holds no configuration file at all; empty: none. */
  readonly fallbackDirectory: string;
  readonly binDirectories: readonly string[];
}

interface Scan {
  readonly signature: string;
  readonly choice: NetworkChoice | undefined;
  readonly broken: readonly string[];
}

export function createNetworkSource(options: NetworkSourceOptions): NetworkSource {
  let last: Scan | undefined;

  const scan = (): Scan => {
    const own = configFiles(options.directory);
    const files =
      own.length > 0 || options.fallbackDirectory === ''
        ? own
        : configFiles(options.fallbackDirectory);
    const signature = files.map((file) => `${file.path}\0${file.stamp}`).join('\0');
    if (last?.signature !== signature) last = { signature, ...firstValid(files) };
    return last;
  };

  const readiness = (): NetworkReadiness => {
    const { choice, broken } = scan();
    const errors = broken.length > 0 ? `; unusable: ${broken.join('; ')}` : '';
    if (choice === undefined) {
      return {
        ready: false,
        reason: 'NetworkPluginNotReady',
        message:
          broken.length > 0
            ? `no usable CNI network configuration in ${options.directory}${errors}`
            : `no CNI network configuration in ${options.directory}`,
      };
    }
    const missing = choice.list.plugins
      .map((plugin) => plugin.type)
      .filter((type) => findPlugin(type, options.binDirectories) === undefined);
    if (missing.length > 0) {
      return {
        ready: false,
        reason: 'NetworkPluginNotReady',
        message: `${choice.file} wants CNI plugins that are not in ${options.binDirectories.join(':')}: ${missing.join(', ')}`,
      };
    }
    return { ready: true, reason: '', message: `${choice.file}${errors}` };
  };

  return {
    readiness,
    current() {
      const { choice } = scan();
      if (choice === undefined) {
        throw new Failure('unavailable', readiness().message, { stage: 'CNI configuration' });
      }
      return choice;
    },
  };
}

/** The plugin's binary, from the first directory that has it; undefined where none does. */
export function findPlugin(type: string, directories: readonly string[]): string | undefined {
  for (const directory of directories) {
    const path = join(directory, type);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) throw error;
    }
  }
  return undefined;
}

interface ConfigFile {
  readonly path: string;
  /** Changes whenever the content may have. */
  readonly stamp: string;
}

function configFiles(directory: string): ConfigFile[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
    return [];
  }
  const files: ConfigFile[] = [];
  for (const name of names.filter((entry) => CONFIG_EXTENSIONS.includes(extname(entry))).sort()) {
    const path = join(directory, name);
    const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stat?.isFile()) files.push({ path, stamp: `${stat.ino}.${stat.size}.${stat.mtimeNs}` });
  }
  return files;
}

function firstValid(files: readonly ConfigFile[]): Omit<Scan, 'signature'> {
  const broken: string[] = [];
  for (const { path } of files) {
    try {
      return { choice: { list: parseNetworkList(readBounded(path)), file: path }, broken };
    } catch (error) {
      if (isFailure(error)) broken.push(`${path}: ${error.message}`);
      // It went between the listing and now: the next look sees another directory.
      else if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
  return { choice: undefined, broken };
}

function readBounded(path: string): string {
  const { size } = statSync(path);
  if (size > CONFIG_BYTES_MAX) {
    throw new Failure('invalid_argument', `is larger than ${CONFIG_BYTES_MAX} bytes`);
  }
  return readFileSync(path, 'utf8');
}
