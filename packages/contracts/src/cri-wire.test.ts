import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, it } from 'mocha';

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(dirname(here)));

// ---- the wire facts, as published with cri-api ----

interface FactField {
  readonly n: number;
  readonly name: string;
  readonly type: string;
  readonly repeated?: boolean;
  readonly deprecated?: boolean;
}

interface Facts {
  readonly package: string;
  readonly services: Readonly<
    Record<
      string,
      readonly {
        readonly rpc: string;
        readonly request: string;
        readonly response: string;
        readonly server_streaming?: boolean;
        readonly client_streaming?: boolean;
      }[]
    >
  >;
  readonly messages: Readonly<
    Record<
      string,
      {
        readonly fields?: readonly FactField[];
        /** Instead of fields: the name is that of an enumeration inside a message. */
        readonly enum?: Readonly<Record<string, number>>;
      }
    >
  >;
  readonly enums: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

// ---- the compiled schema: google.protobuf.FileDescriptorProto, as buf writes it in JSON ----

interface Descriptor {
  readonly name: string;
  readonly field?: readonly {
    readonly name: string;
    readonly number: number;
    readonly label: string;
    readonly type: string;
    readonly typeName?: string;
    readonly oneofIndex?: number;
    readonly proto3Optional?: boolean;
    readonly options?: { readonly deprecated?: boolean };
  }[];
  readonly nestedType?: readonly Descriptor[];
  readonly enumType?: readonly EnumDescriptor[];
  readonly options?: { readonly mapEntry?: boolean };
}

interface EnumDescriptor {
  readonly name: string;
  readonly value: readonly { readonly name: string; readonly number?: number }[];
}

interface FileDescriptor {
  readonly name: string;
  readonly package: string;
  readonly syntax: string;
  readonly messageType: readonly Descriptor[];
  readonly enumType: readonly EnumDescriptor[];
  readonly service: readonly {
    readonly name: string;
    readonly method: readonly {
      readonly name: string;
      readonly inputType: string;
      readonly outputType: string;
      readonly serverStreaming?: boolean;
      readonly clientStreaming?: boolean;
    }[];
  }[];
}

/** One line per thing, so that a difference reads as what it is, in either direction. */
interface Lines {
  readonly methods: string[];
  readonly messages: string[];
  readonly fields: string[];
  readonly enumValues: string[];
}

function linesOfFacts(facts: Facts): Lines {
  const lines: Lines = { methods: [], messages: [], fields: [], enumValues: [] };
  for (const [service, methods] of Object.entries(facts.services)) {
    for (const method of methods) {
      const request = `${method.client_streaming === true ? 'stream ' : ''}${method.request}`;
      const response = `${method.server_streaming === true ? 'stream ' : ''}${method.response}`;
      lines.methods.push(`${service}.${method.rpc}(${request}) -> ${response}`);
    }
  }
  const addEnum = (name: string, values: Readonly<Record<string, number>>): void => {
    for (const [value, number] of Object.entries(values)) {
      lines.enumValues.push(`${name}.${value} = ${number}`);
    }
  };
  for (const [message, { fields = [], enum: values }] of Object.entries(facts.messages)) {
    if (values === undefined) lines.messages.push(message);
    else addEnum(message, values);
    for (const field of fields) {
      const label = field.repeated === true ? 'repeated ' : '';
      const deprecated = field.deprecated === true ? ' deprecated' : '';
      const type = field.type.replaceAll(' ', '');
      lines.fields.push(`${message}: ${label}${type} ${field.name} = ${field.n}${deprecated}`);
    }
  }
  for (const [name, values] of Object.entries(facts.enums)) addEnum(name, values);
  return lines;
}

function linesOfSchema(file: FileDescriptor): Lines {
  const lines: Lines = { methods: [], messages: [], fields: [], enumValues: [] };
  const local = (typeName: string): string => typeName.replace(`.${file.package}.`, '');
  for (const service of file.service) {
    for (const method of service.method) {
      const request = `${method.clientStreaming === true ? 'stream ' : ''}${local(method.inputType)}`;
      const response = `${method.serverStreaming === true ? 'stream ' : ''}${local(method.outputType)}`;
      lines.methods.push(`${service.name}.${method.name}(${request}) -> ${response}`);
    }
  }
  const scalar = (type: string, typeName = ''): string =>
    typeName === '' ? type.replace('TYPE_', '').toLowerCase() : local(typeName);
  const addEnum = (prefix: string, descriptor: EnumDescriptor): void => {
    for (const { name, number = 0 } of descriptor.value) {
      lines.enumValues.push(`${prefix}${descriptor.name}.${name} = ${number}`);
    }
  };
  const addMessage = (prefix: string, message: Descriptor): void => {
    const path = `${prefix}${message.name}`;
    lines.messages.push(path);
    const maps = new Map<string, string>();
    for (const nested of message.nestedType ?? []) {
      if (nested.options?.mapEntry !== true) {
        addMessage(`${path}.`, nested);
        continue;
      }
      const types = (nested.field ?? []).map((field) => scalar(field.type, field.typeName));
      maps.set(`${path}.${nested.name}`, `map<${types.join(',')}>`);
    }
    for (const nested of message.enumType ?? []) addEnum(`${path}.`, nested);
    for (const field of message.field ?? []) {
      // CRI has neither; one would change what is on the wire or what absence means.
      assert.equal(field.oneofIndex, undefined, `${path}.${field.name} is in a oneof`);
      const type = scalar(field.type, field.typeName);
      const map = maps.get(type);
      const label = field.label === 'LABEL_REPEATED' && map === undefined ? 'repeated ' : '';
      const deprecated = field.options?.deprecated === true ? ' deprecated' : '';
      lines.fields.push(
        `${path}: ${label}${map ?? type} ${field.name} = ${field.number}${deprecated}`,
      );
    }
  };
  for (const message of file.messageType) addMessage('', message);
  for (const descriptor of file.enumType) addEnum('', descriptor);
  return lines;
}

describe('the CRI schema against the wire facts of cri-api', () => {
  const work = mkdtempSync(join(tmpdir(), 'cribus-wire-'));
  let facts: Facts;
  let file: FileDescriptor;

  before(() => {
    facts = JSON.parse(readFileSync(join(here, 'fixtures/cri-v1-wire.json'), 'utf8')) as Facts;
    const image = join(work, 'image.json');
    execFileSync(join(root, 'node_modules/.bin/buf'), ['build', '-o', image], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env['PATH']}` },
    });
    const set = JSON.parse(readFileSync(image, 'utf8')) as { file: FileDescriptor[] };
    const found = set.file.find((candidate) => candidate.name === 'cri/v1/api.proto');
    assert.ok(found !== undefined, 'proto/cri/v1/api.proto was not compiled');
    file = found;
  });

  after(() => rmSync(work, { recursive: true }));

  for (const what of ['methods', 'messages', 'fields', 'enumValues'] as const) {
    it(`has the same ${what}, both ways`, () => {
      const wanted = linesOfFacts(facts)[what];
      const have = linesOfSchema(file)[what];
      const haveSet = new Set(have);
      const wantedSet = new Set(wanted);
      assert.deepEqual(
        {
          missing: wanted.filter((line) => !haveSet.has(line)),
          unknown: have.filter((line) => !wantedSet.has(line)),
        },
        { missing: [], unknown: [] },
      );
      assert.equal(haveSet.size, have.length);
      assert.equal(have.length, wanted.length);
    });
  }

  it('compared something', () => {
    assert.equal(file.package, facts.package);
    assert.equal(file.syntax, 'proto3');
    const { methods, messages, fields, enumValues } = linesOfSchema(file);
    console.log(
      `      compared ${methods.length} methods, ${messages.length} messages, ` +
        `${fields.length} fields and ${enumValues.length} enum values`,
    );
    // 35 of RuntimeService and 6 of ImageService in cri-api v0.37.0-beta.0.
    assert.equal(methods.length, 41);
    assert.ok(messages.length > 100 && fields.length > 400 && enumValues.length > 80);
  });
});
