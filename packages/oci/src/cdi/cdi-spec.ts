// A CDI spec file (Container Device Interface, SPEC.md, versions 0.3.0 to 1.1.0): its shape, what
// its values may be, and which version each field needs.

import { Failure } from '@cribus/contracts/failure.ts';
import * as v from 'valibot';
import { HOOK_NAMES } from '../spec.ts';
import { cdiDeviceNameProblem, cdiKindProblem } from './cdi-names.ts';

/** A field that may be left out; `null` in YAML is the same. */
function optional<const S extends v.GenericSchema>(schema: S) {
  return v.nullish(schema);
}

function list<const S extends v.GenericSchema>(schema: S) {
  return v.nullish(v.array(schema), () => []);
}

function whole(min: number, max: number) {
  const message = `must be a whole number of ${min} to ${max}`;
  return v.pipe(v.number(), v.integer(message), v.minValue(min, message), v.maxValue(max, message));
}

const UINT32_MAX = 0xffff_ffff;
/** Linux' dev_t has 12 bits of major and 20 of minor number (kdev_t.h). */
const MAJOR_MAX = 0xfff;
const MINOR_MAX = 0xf_ffff;

const text = v.pipe(
  v.string(),
  v.check((value) => value !== '' && !value.includes('\0'), 'must be a text that is not empty'),
);
const absolutePath = v.pipe(
  text,
  v.check((value) => value.startsWith('/'), 'must be an absolute path'),
);
const variable = v.pipe(
  v.string(),
  v.check((value) => value.indexOf('=') > 0 && !value.includes('\0'), 'must be NAME=value'),
);
const annotations = optional(v.record(v.string(), v.string()));

const DeviceNodeSchema = v.strictObject({
  path: absolutePath,
  hostPath: optional(absolutePath),
  // u is a character device without a buffer: Linux has no others.
  type: optional(v.picklist(['b', 'c', 'u', 'p'], 'must be one of b, c, u, p')),
  major: optional(whole(0, MAJOR_MAX)),
  minor: optional(whole(0, MINOR_MAX)),
  fileMode: optional(whole(0, 0o7777)),
  permissions: optional(
    v.pipe(
      v.string(),
      v.check(
        (value) => /^([rwm]{0,3}|none)$/.test(value),
        'must be letters of r, w, m, or "none"',
      ),
    ),
  ),
  uid: optional(whole(0, UINT32_MAX)),
  gid: optional(whole(0, UINT32_MAX)),
});

const MountSchema = v.strictObject({
  hostPath: text,
  containerPath: absolutePath,
  type: optional(v.string()),
  options: list(text),
});

const HookSchema = v.strictObject({
  hookName: v.picklist(HOOK_NAMES, `must be one of ${HOOK_NAMES.join(', ')}`),
  path: absolutePath,
  args: list(v.string()),
  env: list(variable),
  timeout: optional(whole(1, UINT32_MAX)),
});

const IntelRdtSchema = v.strictObject({
  closID: optional(
    v.pipe(
      v.string(),
      // It is a directory of resctrl, "/" its root.
      v.check((id) => id === '/' || !/^\.{0,2}$|[/\n]|^.{4096,}/s.test(id), 'must be a file name'),
    ),
  ),
  l3CacheSchema: optional(v.string()),
  memBwSchema: optional(v.string()),
  schemata: optional(v.array(v.string())),
  enableMonitoring: optional(v.boolean()),
  enableCMT: optional(v.boolean()),
  enableMBM: optional(v.boolean()),
});

const NetDeviceSchema = v.strictObject({ hostInterfaceName: text, name: text });

const groups = list(whole(0, UINT32_MAX));

const EditsSchema = v.pipe(
  v.strictObject({
    env: list(variable),
    deviceNodes: list(DeviceNodeSchema),
    netDevices: list(NetDeviceSchema),
    mounts: list(MountSchema),
    hooks: list(HookSchema),
    intelRdt: optional(IntelRdtSchema),
    additionalGids: groups,
    // SPEC.md spells it in both ways.
    additionalGIDs: groups,
  }),
  v.transform(({ additionalGIDs, ...edits }) => ({
    ...edits,
    additionalGids: [...edits.additionalGids, ...additionalGIDs],
  })),
);

const SpecSchema = v.strictObject({
  cdiVersion: text,
  kind: text,
  annotations,
  devices: v.pipe(
    v.array(v.strictObject({ name: v.string(), annotations, containerEdits: EditsSchema })),
    v.minLength(1, 'must hold at least one device'),
  ),
  containerEdits: optional(EditsSchema),
});

export type CdiSpec = v.InferOutput<typeof SpecSchema>;
export type CdiEdits = v.InferOutput<typeof EditsSchema>;
export type CdiDeviceNode = v.InferOutput<typeof DeviceNodeSchema>;
export type CdiMount = v.InferOutput<typeof MountSchema>;

/** Those that the interface has published (SPEC.md, "Released versions"), oldest first. */
const VERSIONS = ['0.3.0', '0.4.0', '0.5.0', '0.6.0', '0.7.0', '0.8.0', '1.0.0', '1.1.0'];

/** Checks a parsed file. Raises invalid_argument with the first thing that is wrong. */
export function parseCdiSpec(value: unknown): CdiSpec {
  const result = v.safeParse(SpecSchema, value);
  if (!result.success) throw new Failure('invalid_argument', describe(result.issues[0]));
  const spec = result.output;
  const problem = problemOf(spec);
  if (problem !== undefined) throw new Failure('invalid_argument', problem);
  return spec;
}

function problemOf(spec: CdiSpec): string | undefined {
  const version = spec.cdiVersion.replace(/^v/, '');
  if (!VERSIONS.includes(version)) {
    return `cdiVersion ${JSON.stringify(spec.cdiVersion)} is none of ${VERSIONS.join(', ')}`;
  }
  const kind = cdiKindProblem(spec.kind);
  if (kind !== undefined) return `kind ${JSON.stringify(spec.kind)}: ${kind}`;
  const seen = new Set<string>();
  for (const { name, containerEdits } of spec.devices) {
    const problem = cdiDeviceNameProblem(name);
    if (problem !== undefined) return `device name ${JSON.stringify(name)}: ${problem}`;
    if (seen.has(name)) return `device ${JSON.stringify(name)} is there twice`;
    seen.add(name);
    if (isEmpty(containerEdits)) return `device ${JSON.stringify(name)} has empty containerEdits`;
  }
  const needed = neededVersion(spec);
  return VERSIONS.indexOf(version) < VERSIONS.indexOf(needed.version)
    ? `${needed.field} needs cdiVersion ${needed.version}, and it is ${version}`
    : undefined;
}

function isEmpty(edits: CdiEdits): boolean {
  const { intelRdt, ...lists } = edits;
  return (intelRdt ?? undefined) === undefined && Object.values(lists).every((one) => !one.length);
}

/** The newest version that a field of the file came with (SPEC.md, "Released versions"). */
function neededVersion(spec: CdiSpec): { readonly version: string; readonly field: string } {
  const edits = [spec.containerEdits, ...spec.devices.map((device) => device.containerEdits)];
  const some = (has: (one: CdiEdits) => boolean) =>
    edits.some((one) => one !== undefined && one !== null && has(one));
  const annotated = [spec, ...spec.devices].some(
    (one) => Object.keys(one.annotations ?? {}).length > 0,
  );
  const newestFirst: readonly (readonly [string, string, boolean])[] = [
    ['1.1.0', 'netDevices', some((one) => one.netDevices.length > 0)],
    [
      '1.1.0',
      'intelRdt.schemata',
      some((one) => (one.intelRdt?.schemata ?? undefined) !== undefined),
    ],
    ['1.1.0', 'intelRdt.enableMonitoring', some((one) => one.intelRdt?.enableMonitoring === true)],
    ['0.7.0', 'intelRdt', some((one) => (one.intelRdt ?? undefined) !== undefined)],
    ['0.7.0', 'additionalGids', some((one) => one.additionalGids.length > 0)],
    ['0.6.0', 'annotations', annotated],
    ['0.6.0', 'a dot in the class of kind', spec.kind.split('/')[1]?.includes('.') === true],
    [
      '0.5.0',
      'a device name that begins with a digit',
      spec.devices.some((one) => /^\d/.test(one.name)),
    ],
    ['0.5.0', 'deviceNodes.hostPath', some((one) => one.deviceNodes.some((node) => node.hostPath))],
    ['0.4.0', 'mounts.type', some((one) => one.mounts.some((mount) => mount.type))],
  ];
  const found = newestFirst.find(([, , used]) => used);
  return { version: found?.[0] ?? '0.3.0', field: found?.[1] ?? 'a CDI spec' };
}

/** As `devices[0].containerEdits.mounts[1].hostPath: is missing`. */
function describe(issue: v.BaseIssue<unknown>): string {
  const path = (issue.path ?? [])
    .map(({ key }) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
    .join('')
    .replace(/^\./, '');
  const isKey = issue.path?.at(-1)?.origin === 'key';
  if (isKey && issue.expected === 'never') return `${path}: there is no such field`;
  if (isKey && issue.input === undefined) return `${path}: is missing`;
  const message =
    issue.kind === 'schema' && issue.type !== 'picklist' ? wanted(issue) : issue.message;
  return path === '' ? `the file ${message}` : `${path} ${message}`;
}

function wanted(issue: v.BaseIssue<unknown>): string {
  const kinds: Readonly<Record<string, string>> = {
    string: 'a text',
    number: 'a number',
    boolean: 'true or false',
    array: 'a list',
    strict_object: 'an object',
    record: 'an object',
  };
  return `must be ${kinds[issue.type] ?? issue.expected}`;
}
