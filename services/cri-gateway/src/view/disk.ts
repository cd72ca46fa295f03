// The last resort while an owner is silent: its records on disk, only read. They are renamed into
// place whole, so a file that is there can be read at any time.

import { join } from 'node:path';
import {
  ContainerRecord,
  ImageRecord,
  ObjectReport,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import {
  containerPaths,
  handlerPaths,
  type Roots,
  sandboxPaths,
  stackPaths,
} from '@cribus/contracts/paths.ts';
import { IMAGE_SERVICE, type OwnerName, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { listDirectory, readFileIfExists } from '@cribus/host/files.ts';

/** Every record of the owner that can be read; `onUnreadable` hears of the others. */
export async function readRecordsOnDisk(options: {
  readonly roots: Roots;
  readonly owner: OwnerName;
  readonly signal: AbortSignal;
  readonly onUnreadable: (path: string, error: unknown) => void;
}): Promise<ObjectReport[]> {
  const { directory, recordOf, decode } = placeOf(options.roots, options.owner);
  const reports: ObjectReport[] = [];
  for (const id of await listDirectory(directory)) {
    options.signal.throwIfAborted();
    const path = recordOf(id);
    const bytes = await readFileIfExists(path);
    if (bytes === undefined) continue;
    try {
      reports.push(decode(options.owner, bytes));
    } catch (error) {
      options.onUnreadable(path, error);
    }
  }
  return reports;
}

interface Place {
  readonly directory: string;
  readonly recordOf: (id: string) => string;
  readonly decode: (owner: OwnerName, bytes: Buffer) => ObjectReport;
}

function placeOf(roots: Roots, owner: OwnerName): Place {
  if (owner === IMAGE_SERVICE) {
    const directory = join(stackPaths(roots).images, 'records');
    return {
      directory,
      recordOf: (id) => join(directory, id, 'record.pb'),
      decode: (name, bytes) => report(name, { $case: 'image', value: ImageRecord.decode(bytes) }),
    };
  }
  if (owner === SANDBOX_MANAGER) {
    return {
      directory: stackPaths(roots).sandboxes,
      recordOf: (id) => sandboxPaths(roots, id).record,
      decode: (name, bytes) =>
        report(name, { $case: 'sandbox', value: SandboxRecord.decode(bytes) }),
    };
  }
  const token = owner.slice('runtime.'.length);
  return {
    directory: handlerPaths(roots, token).containers,
    recordOf: (id) => containerPaths(roots, token, id).record,
    decode: (name, bytes) =>
      report(name, { $case: 'container', value: ContainerRecord.decode(bytes) }),
  };
}

function report(owner: OwnerName, object: NonNullable<ObjectReport['object']>): ObjectReport {
  const { id, version } = object.value;
  return ObjectReport.fromPartial({
    owner,
    id,
    ...(version === undefined ? {} : { version }),
    object,
  });
}
