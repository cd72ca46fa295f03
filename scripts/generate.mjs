// Generates packages/contracts/src/gen from proto/ with buf and ts-proto, both from npm and offline.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = process.argv[2] ?? join(root, 'packages/contracts/src/gen');

const OPTIONS = [
  'env=node',
  'esModuleInterop=true',
  'importSuffix=.ts',
  'forceLong=bigint',
  'oneof=unions-value',
  'enumsAsLiterals=true',
  'removeEnumPrefix=true',
  'unrecognizedEnum=false',
  'outputPartialMethods=true',
  'useExactTypes=false',
  'outputServices=grpc-js',
];

const work = mkdtempSync(join(tmpdir(), 'cribus-generate-'));
try {
  cpSync(join(root, 'proto'), join(work, 'proto'), { recursive: true });
  cpSync(join(root, 'buf.yaml'), join(work, 'buf.yaml'));
  splitOffServices(join(work, 'proto/cri/v1'));
  const plugin = join(root, 'node_modules/.bin/protoc-gen-ts_proto');
  writeFileSync(
    join(work, 'buf.gen.json'),
    JSON.stringify({ version: 'v2', plugins: [{ local: plugin, out, opt: OPTIONS }] }),
  );
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  execFileSync(join(root, 'node_modules/.bin/buf'), ['generate', '--template', 'buf.gen.json'], {
    cwd: work,
    stdio: 'inherit',
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` },
  });
} finally {
  rmSync(work, { recursive: true });
}

/**
 * The services become a file of their own, so that what only needs CRI's messages does not load gRPC
 * (9 MB in each service). The schema in proto/ stays one file, as callers know it.
 */
function splitOffServices(directory) {
  const api = join(directory, 'api.proto');
  const text = readFileSync(api, 'utf8');
  const services = text.match(/^service \w+ \{[\s\S]*?^\}/gm) ?? [];
  if (services.length !== 2) throw new Error(`found ${services.length} services in api.proto`);
  writeFileSync(
    api,
    services.reduce((rest, service) => rest.replace(service, ''), text),
  );
  const head = 'syntax = "proto3";\npackage runtime.v1;\nimport "cri/v1/api.proto";\n';
  writeFileSync(join(directory, 'services.proto'), `${head}${services.join('\n')}\n`);
}
