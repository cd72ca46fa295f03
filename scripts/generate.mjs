// Generates packages/contracts/src/gen from proto/ with buf and ts-proto, both from npm and offline.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = process.argv[2] ?? join(root, 'packages/contracts/src/gen');

const SHARED_OPTIONS = [
  'env=node',
  'esModuleInterop=true',
  'importSuffix=.ts',
  'forceLong=bigint',
  'oneof=unions-value',
  // Else the second run would write the imported CRI file again, without its services.
  'emitImportedFiles=false',
  'enumsAsLiterals=true',
  'removeEnumPrefix=true',
  'unrecognizedEnum=false',
  'outputPartialMethods=true',
  'useExactTypes=false',
];

function generate(path, options) {
  const work = mkdtempSync(join(tmpdir(), 'cribus-gen-'));
  const template = join(work, 'buf.gen.json');
  writeFileSync(
    template,
    JSON.stringify({
      version: 'v2',
      plugins: [{ local: join(root, 'node_modules/.bin/protoc-gen-ts_proto'), out, opt: options }],
    }),
  );
  execFileSync(
    join(root, 'node_modules/.bin/buf'),
    ['generate', '--template', template, '--path', path],
    {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` },
    },
  );
  rmSync(work, { recursive: true });
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
generate('proto/cri', [...SHARED_OPTIONS, 'outputServices=grpc-js']);
generate('proto/node', [...SHARED_OPTIONS, 'outputServices=none']);
