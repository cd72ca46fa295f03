// Which edits a request's CDI devices bring, out of all spec files that there are.

import { Failure } from '@cribus/contracts/failure.ts';
import type { CdiEdits, CdiSpec } from './cdi-spec.ts';

/** A file as it was found: what it says, or why it says nothing. */
export interface CdiFile {
  readonly path: string;
  /** Index of its directory: a later one has precedence. */
  readonly priority: number;
  readonly content: { readonly spec: CdiSpec } | { readonly invalid: string };
}

interface Found {
  readonly path: string;
  readonly priority: number;
  readonly spec: CdiSpec;
  readonly edits: CdiEdits;
}

/**
 * The edits in the order in which they are applied: of each device those of its file, once, and
 * then its own (SPEC.md, "OCI Edits"). A device of a later directory takes the place of one of the
 * same name in an earlier one. Raises not_found for devices that no file has, with the directories
 * and with the files that could not be read; wrong_state for a device that two files of one
 * directory have.
 */
export function selectCdiEdits(
  names: readonly string[],
  from: { readonly files: readonly CdiFile[]; readonly directories: readonly string[] },
): CdiEdits[] {
  const devices = new Map<string, readonly Found[]>();
  for (const file of from.files) {
    if (!('spec' in file.content)) continue;
    const { spec } = file.content;
    for (const { name, containerEdits: edits } of spec.devices) {
      const qualified = `${spec.kind}=${name}`;
      const rivals = devices.get(qualified) ?? [];
      const highest = rivals[0]?.priority ?? file.priority;
      if (file.priority < highest) continue;
      const found = { path: file.path, priority: file.priority, spec, edits };
      devices.set(qualified, file.priority > highest ? [found] : [...rivals, found]);
    }
  }
  const unknown = names.filter((name) => !devices.has(name));
  if (unknown.length > 0) throw unknownDevices(unknown, from);
  const edits: CdiEdits[] = [];
  const begun = new Set<CdiSpec>();
  for (const name of names) {
    const [found, rival] = devices.get(name) ?? [];
    if (found === undefined) continue;
    if (rival !== undefined) {
      throw new Failure(
        'wrong_state',
        `CDI device ${name} is both in ${found.path} and in ${rival.path}`,
      );
    }
    if (!begun.has(found.spec) && found.spec.containerEdits) edits.push(found.spec.containerEdits);
    begun.add(found.spec);
    edits.push(found.edits);
  }
  return edits;
}

function unknownDevices(
  names: readonly string[],
  from: { readonly files: readonly CdiFile[]; readonly directories: readonly string[] },
): Failure {
  const invalid = from.files.flatMap(({ path, content }) =>
    'invalid' in content ? [`${path}: ${content.invalid}`] : [],
  );
  const where = from.directories.length === 0 ? 'no directory' : from.directories.join(', ');
  return new Failure(
    'not_found',
    [
      `CDI ${names.length === 1 ? 'device' : 'devices'} ${names.join(', ')} not found in ${where}`,
      ...(invalid.length === 0 ? [] : [`invalid there: ${invalid.join('; ')}`]),
    ].join('; '),
  );
}
