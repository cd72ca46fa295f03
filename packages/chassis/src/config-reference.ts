// The configuration as a text: every key with its sentence and its value, readable as a
// configuration again. `cribus config` prints it of the effective one.

import { stringify } from 'smol-toml';
import * as v from 'valibot';
import { type Config, ConfigSchema, parseConfig, RuntimeHandlerSchema } from './config.ts';
import { entriesOf, unwrap } from './config-errors.ts';

/** The default configuration (below `directory`, or in the system's places) with its documentation. */
export function configReference(directory?: string): string {
  return configText(parseConfig('', { file: 'default', directory }), { documented: true });
}

/** A configuration as TOML that parseConfig reads back to the same one, whatever `--root` says. */
export function configText(config: Config, options: { readonly documented: boolean }): string {
  const { roots, ...rest } = config;
  const values: Readonly<Record<string, unknown>> = { ...rest, paths: roots };
  const sections = Object.entries(entriesOf(ConfigSchema) ?? {}).map(([name, schema]) =>
    section({
      name,
      schema: unwrap(schema),
      values: values[name] as Readonly<Record<string, unknown>>,
      documented: options.documented,
    }),
  );
  return `${sections.join('\n')}`;
}

interface Section {
  readonly name: string;
  readonly schema: unknown;
  readonly values: Readonly<Record<string, unknown>>;
  readonly documented: boolean;
}

function section({ name, schema, values, documented }: Section): string {
  const lines = [`[${name}]`];
  const tables: string[] = [];
  for (const [key, entry] of Object.entries(entriesOf(schema) ?? {})) {
    const value = values[key];
    const about = documented ? describe(entry) : [];
    if (isTable(value)) {
      tables.push('', ...about, ...table(`${name}.${key}`, value, documented));
    } else if (value !== undefined) {
      lines.push(...about, stringify({ [key]: value }).trim());
    }
  }
  return `${[...lines, ...tables].join('\n')}\n`;
}

/** A table with free names: of values (ports), or of tables (handlers). */
function table(
  name: string,
  values: Readonly<Record<string, unknown>>,
  documented: boolean,
): string[] {
  const inner = Object.entries(values).filter(([, value]) => isTable(value));
  if (inner.length === 0) {
    return [
      `[${name}]`,
      ...stringify(values)
        .trim()
        .split('\n')
        .filter((line) => line !== ''),
    ];
  }
  return inner.map(([key, value], index) =>
    section({
      name: `${name}.${/^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key)}`,
      schema: RuntimeHandlerSchema,
      values: value as Readonly<Record<string, unknown>>,
      // Once is enough: the keys of the next one are the same.
      documented: documented && index === 0,
    }),
  );
}

function describe(entry: unknown): string[] {
  const about = v.getDescription(unwrap(entry) as v.GenericSchema);
  return about === undefined ? [] : [`# ${about}`];
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
