// CDI devices of a request: the spec files are read at each use, for what writes them (device
// plugins, vendors' tools) expects them to count at once.

import { realpathSync, statSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { Logger } from '@cribus/chassis/log.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { type ContainerConfig, type IDMapping, Mount } from '@cribus/contracts/gen/cri/v1/api.ts';
import { deviceAt } from '@cribus/host/devices.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { type CdiInput, hostPathOf, isBind } from '@cribus/oci/cdi/apply-edits.ts';
import { requestedCdiDevices } from '@cribus/oci/cdi/cdi-names.ts';
import { type CdiEdits, parseCdiSpec } from '@cribus/oci/cdi/cdi-spec.ts';
import { type CdiFile, selectCdiEdits } from '@cribus/oci/cdi/select-edits.ts';
import type { HostDevice, ResolvedMount } from '@cribus/oci/spec-input.ts';
import { hostDevice } from './host-facts.ts';

/** A device plugin writes a file per pod at most; a generated one of many GPUs has some 100 KiB. */
const FILES_MAX = 4096;
const FILE_BYTES_MAX = 8 * 1024 * 1024;

/**
 * What the CDI devices of a configuration change, and the device nodes that they need; undefined
 * where it names none. Raises what requestedCdiDevices and selectCdiEdits do, and wrong_state for
 * a mount whose source is not on this host.
 */
export async function readCdiDevices(
  config: ContainerConfig,
  from: { readonly directories: readonly string[]; readonly log: Logger },
): Promise<CdiInput | undefined> {
  const names = requestedCdiDevices(config);
  if (names.length === 0) return undefined;
  const { directories, log } = from;
  const files = (await Promise.all(directories.map(readDirectory))).flat();
  const edits = selectCdiEdits(names, { files, directories });
  for (const { path, content } of files) {
    if ('invalid' in content)
      log.warn({ path, why: content.invalid }, 'a CDI spec file is invalid');
  }
  await requireMountSources(edits);
  return { edits, nodes: findNodes(edits) };
}

async function readDirectory(directory: string, priority: number): Promise<CdiFile[]> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    return [{ path: directory, priority, content: { invalid: reasonOf(error) } }];
  }
  const specs = names.filter((name) => ['.json', '.yaml'].includes(extname(name))).sort();
  if (specs.length > FILES_MAX) {
    throw new Failure('limit', `${directory} holds ${specs.length} CDI spec files`);
  }
  const files: CdiFile[] = [];
  for (const name of specs) {
    const path = join(directory, name);
    const content = await readSpec(path);
    if (content !== undefined) files.push({ path, priority, content });
  }
  return files;
}

/** Undefined for what is no file, or is gone since the directory was read. */
async function readSpec(path: string): Promise<CdiFile['content'] | undefined> {
  try {
    // A fifo of that name must not hold us.
    if (!(await stat(path)).isFile()) return undefined;
    const text = await readText(path);
    const value = extname(path) === '.json' ? parseJson(text) : await parseYaml(text);
    return { spec: parseCdiSpec(value) };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    return { invalid: reasonOf(error) };
  }
}

async function readText(path: string): Promise<string> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    if (size > FILE_BYTES_MAX) throw new Failure('limit', `it has ${size} bytes`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Failure('invalid_argument', `it is no JSON: ${error.message}`);
  }
}

/** The parser is a file of its own in dist/, read by the first YAML file. */
async function parseYaml(text: string): Promise<unknown> {
  const file = import.meta.url.endsWith('.ts') ? './yaml-parser.ts' : './yaml-parser.mjs';
  const parser: typeof import('./yaml-parser.ts') = await import(
    new URL(file, import.meta.url).href
  );
  return parser.parseYamlText(text);
}

function reasonOf(error: unknown): string {
  if (isFailure(error)) return error.message;
  if (error instanceof Error && 'code' in error) return `it can't be read (${String(error.code)})`;
  throw error;
}

/** SPEC.md, "Error Handling": a resource need not exist when the file is written, but now it must. */
async function requireMountSources(edits: readonly CdiEdits[]): Promise<void> {
  for (const mount of edits.flatMap((one) => one.mounts)) {
    if (!isBind(mount)) continue;
    await stat(mount.hostPath).catch((error: unknown) => {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
      throw new Failure('wrong_state', `CDI mount: ${mount.hostPath} is not on this host`);
    });
  }
}

/** What CDI devices bind of the host, in the order of their edits, as mounts with these mappings. */
export function cdiVolumes(
  cdi: CdiInput | undefined,
  mappings: { readonly uids: readonly IDMapping[]; readonly gids: readonly IDMapping[] },
): ResolvedMount[] {
  const binds = (cdi?.edits ?? []).flatMap((edits) => edits.mounts.filter(isBind));
  return binds.map(({ hostPath, containerPath }) => {
    const uidMappings = [...mappings.uids];
    const gidMappings = [...mappings.gids];
    return {
      mount: Mount.fromPartial({ hostPath, containerPath, uidMappings, gidMappings }),
      source: hostPath,
      sourceIsDirectory: statSync(hostPath).isDirectory(),
    };
  });
}

/** The same edits with these sources for what they bind. */
export function withCdiVolumes(cdi: CdiInput, volumes: readonly ResolvedMount[]): CdiInput {
  const sources = volumes.map(({ source }) => source);
  const edits = cdi.edits.map((one) => ({
    ...one,
    mounts: one.mounts.map((mount) =>
      isBind(mount) ? { ...mount, hostPath: sources.shift() ?? mount.hostPath } : mount,
    ),
  }));
  return { ...cdi, edits };
}

function findNodes(edits: readonly CdiEdits[]): Map<string, HostDevice> {
  const found = new Map<string, HostDevice>();
  for (const path of edits.flatMap((one) => one.deviceNodes.map(hostPathOf))) {
    try {
      const node = deviceAt(realpathSync(path));
      if (node !== undefined) found.set(path, hostDevice(node));
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
    }
  }
  return found;
}
