// Reading CDI spec files of real directories.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { readCdiDevices } from './cdi-devices.ts';

const EDITS = 'containerEdits: {deviceNodes: [{path: /dev/x, type: c, major: 1, fileMode: 0640}]}';
const HEAD = 'cdiVersion: 0.5.0\nkind: v.io/gpu\n';

describe('CDI spec files', () => {
  let directory = '';
  let warned: unknown[] = [];
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-cdi-'));
    warned = [];
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const log = { warn: (fields: object) => warned.push(fields) } as unknown as Logger;
  const read = (name: string) =>
    readCdiDevices(ContainerConfig.fromPartial({ CDIDevices: [{ name }] }), {
      directories: [join(directory, 'absent'), directory],
      log,
    });

  it('are looked for where CDI puts them, unless the configuration says otherwise', () => {
    const { cdi } = parseConfig('', { file: 'c.toml', directory: '/r' });
    assert.deepEqual(cdi.spec_dirs, ['/etc/cdi', '/var/run/cdi']);
  });

  it('are read as YAML 1.1, whose 0640 is octal, and looked at only for devices', async () => {
    writeFileSync(join(directory, 'a.yaml'), `${HEAD}devices:\n- name: one\n  ${EDITS}\n`);
    const found = await read('v.io/gpu=one');
    assert.equal(found?.edits[0]?.deviceNodes[0]?.fileMode, 0o640);
    const none = await readCdiDevices(ContainerConfig.fromPartial({}), {
      directories: ['/proc/self/mem'],
      log,
    });
    assert.equal(none, undefined);
  });

  it('of other kinds are passed over, and broken ones are told of', async () => {
    mkdirSync(join(directory, 'directory.json'));
    execFileSync('mkfifo', [join(directory, 'fifo.json')]);
    symlinkSync('nowhere', join(directory, 'dangling.yaml'));
    writeFileSync(join(directory, 'notes.txt'), 'nothing');
    writeFileSync(join(directory, 'tabs.yaml'), 'a:\n\t- b');
    const bomb = ['a: &a [x,x,x,x,x,x,x,x,x,x]', 'b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]'];
    bomb.push('c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]', 'd: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]');
    writeFileSync(join(directory, 'bomb.yaml'), bomb.join('\n'));
    await assert.rejects(read('v.io/gpu=one'), {
      kind: 'not_found',
      message:
        /^CDI device v\.io\/gpu=one not found in .*; invalid there: \S+\/bomb\.yaml: it is no YAML: .*; \S+\/tabs\.yaml: it is no YAML: .* line 2, column 1/,
    });
    writeFileSync(join(directory, 'a.yaml'), `${HEAD}devices:\n- name: one\n  ${EDITS}\n`);
    assert.equal((await read('v.io/gpu=one'))?.edits.length, 1);
    assert.equal(warned.length, 2);
  });
});
