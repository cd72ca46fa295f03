// docs/reference/config.md says what the schema says. UPDATE_GENERATED=1 writes it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { ConfigSchema, parseConfig, RuntimeHandlerSchema } from './config.ts';
import { entriesOf, unwrap } from './config-errors.ts';
import { configReference } from './config-reference.ts';

const source = dirname(fileURLToPath(import.meta.url));
const page = join(source, '../../../docs/reference/config.md');

const INTRODUCTION = `# Configuration

<!-- Made from the schema in packages/chassis/src/config.ts, by UPDATE_GENERATED=1 npm run unit; the
same test fails when this page and the schema differ. -->

One TOML file: \`/etc/cribus/cribus.toml\`, or \`DIR/etc/cribus.toml\` of a stack with \`--root DIR\`, or
what \`--config FILE\` names. Every key may be left out. With \`--root DIR\` each path that the file
leaves out is below DIR: \`DIR/run\`, \`DIR/state\`, \`DIR/etc\`, \`DIR/log\`, \`DIR/etc/cni/net.d\` and
\`DIR/etc/certs.d\`. \`cribus config\` prints the effective configuration, with what \`cribus up\` chose.
A wrong file is refused as a whole, by a sentence with each wrong key, its value and what is allowed.

## Every key with its default

`;

/** What the errors of a value say is allowed; empty where any text will do. */
function allowed(schema: unknown): string[] {
  const messages: string[] = [];
  const walk = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    const { message, pipe, wrapped, item, value } = node as Record<string, unknown>;
    if (typeof message === 'string') messages.push(message);
    if (Array.isArray(pipe)) for (const one of pipe) if (one !== node) walk(one);
    walk(wrapped);
    walk(item);
    // Of a table with free names, as of ports.
    walk(value);
  };
  walk(schema);
  return [...new Set(messages)];
}

/** Rows of the keys that allow less than any value of their type. */
function limits(section: string, schema: unknown): string[] {
  return Object.entries(entriesOf(unwrap(schema)) ?? {}).flatMap(([key, entry]) => {
    const said = allowed(entry);
    return said.length === 0 ? [] : [`| \`${section}.${key}\` | ${said.join('; ')} |`];
  });
}

function reference(): string {
  const sections = Object.entries(entriesOf(ConfigSchema) ?? {});
  const rows = sections.flatMap(([name, schema]) => limits(name, schema));
  return [
    `${INTRODUCTION}\`\`\`toml`,
    configReference().trim(),
    '```',
    '',
    '## What is allowed',
    '',
    '| Key | Its value |',
    '|---|---|',
    ...rows,
    ...limits('runtimes.handlers.<name>', RuntimeHandlerSchema),
    '',
    'Of lists and tables, each entry must be so. `runtimes.default` must name one of the handlers.',
    '',
  ].join('\n');
}

describe('the reference of the configuration', () => {
  it('is committed as the schema has it', async () => {
    const text = reference();
    if (process.env['UPDATE_GENERATED'] !== undefined) await writeFile(page, text);
    assert.equal(await readFile(page, 'utf8'), text, 'UPDATE_GENERATED=1 npm run unit writes it');
    assert.match(text, /`cgroups\.driver` \| must be one of cgroupfs, systemd/);
    assert.match(text, /`cni\.add_timeout_s` \| must be 1 to 600/);
  });

  it('is itself a configuration, and the default one', () => {
    const defaults = parseConfig('', { file: 'default' });
    assert.deepEqual(parseConfig(configReference(), { file: 'reference' }), defaults);
  });

  it('explains every key', () => {
    const described = reference().split('\n');
    let keys = 0;
    for (const [name, schema] of Object.entries(entriesOf(ConfigSchema) ?? {})) {
      for (const key of Object.keys(entriesOf(unwrap(schema)) ?? {})) {
        const at = described.findIndex(
          (line) => line.startsWith(`${key} = `) || line.startsWith(`[${name}.${key}`),
        );
        assert.match(described[at - 1] ?? '', /^# ./, `${name}.${key}`);
        keys += 1;
      }
    }
    assert.ok(keys > 20, `saw only ${keys} keys`);
  });
});
