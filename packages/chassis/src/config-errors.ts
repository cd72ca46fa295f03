// What a person is told of a wrong configuration: the key, the value, and what is allowed.

import type * as v from 'valibot';

const VALUE_CHARACTERS_MAX = 100;

/** What a value of another type is told to be. */
const TYPES: Readonly<Record<string, string>> = {
  string: 'must be a text in quotes',
  number: 'must be a number',
  boolean: 'must be true or false',
  array: 'must be a list in brackets',
  strict_object: 'must be a table',
  record: 'must be a table',
};

/** One sentence: `runtimes.handlers.gvisor.family = "kata": must be one of runc, gvisor`. */
export function describeIssue(schema: v.GenericSchema, issue: v.BaseIssue<unknown>): string {
  const path = (issue.path ?? []).map((item) => String(item.key));
  const key = path.join('.');
  const isKey = issue.path?.at(-1)?.origin === 'key';
  if (isKey && issue.expected === 'never') {
    const allowed = keysAt(schema, path.slice(0, -1));
    return `${key}: there is no such key; allowed are ${allowed.join(', ')}`;
  }
  if (isKey && issue.input === undefined) return `${key}: is missing`;
  const allowed = issue.kind === 'schema' ? (TYPES[issue.type] ?? issue.message) : issue.message;
  if (isKey) return `${key}: the name ${allowed}`;
  return `${key === '' ? 'the configuration' : `${key} = ${show(issue.input)}`}: ${allowed}`;
}

/** As in TOML, without credentials: an error may end in a log. */
function show(value: unknown): string {
  const text = JSON.stringify(value, (_key, inner) =>
    typeof inner === 'bigint' ? inner.toString() : inner,
  );
  const safe = (text ?? String(value)).replaceAll(/(:\/\/)[^\s/@]+@/g, '$1…@');
  return safe.length > VALUE_CHARACTERS_MAX ? `${safe.slice(0, VALUE_CHARACTERS_MAX)}…` : safe;
}

function keysAt(schema: v.GenericSchema, path: readonly string[]): string[] {
  let here: unknown = unwrap(schema);
  for (const key of path) {
    const entries = entriesOf(here);
    here = unwrap(entries === undefined ? freeValueOf(here) : entries[key]);
  }
  return Object.keys(entriesOf(here) ?? {});
}

/** The schema within `optional`; a pipe has its first schema's own fields. */
export function unwrap(schema: unknown): unknown {
  let here = schema;
  while (typeof here === 'object' && here !== null && 'wrapped' in here) here = here.wrapped;
  return here;
}

/** The keys of a table that is fixed. */
export function entriesOf(schema: unknown): Readonly<Record<string, unknown>> | undefined {
  if (typeof schema !== 'object' || schema === null || !('entries' in schema)) return undefined;
  return schema.entries as Readonly<Record<string, unknown>>;
}

/** The schema of each value of a table with free names. */
export function freeValueOf(schema: unknown): unknown {
  return typeof schema === 'object' && schema !== null && 'value' in schema
    ? schema.value
    : undefined;
}
