// cribus.toml: what `cribus config` prints, and what a person is told of each kind of mistake.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { after, before, describe, it } from 'mocha';
import { CRIBUS, runCommand } from './harness/stack.ts';

describe('the configuration', () => {
  let base: string;
  let root: string;

  before(async () => {
    base = await mkdtemp(join(tmpdir(), 'cribus-e2e-'));
    root = join(base, 'node');
    await mkdir(join(root, 'etc'), { recursive: true });
  });
  after(() => rm(base, { recursive: true, force: true }));

  const MISTAKES: readonly (readonly [string, string, RegExp])[] = [
    [
      'an unknown key',
      '[log]\nlevle = "info"',
      /log\.levle: there is no such key; allowed are level/,
    ],
    [
      'an unknown table',
      '[logs]\nlevel = "info"',
      /logs: there is no such key; allowed are .*\blog\b/,
    ],
    [
      'a value that is not among those allowed',
      '[log]\nlevel = "loud"',
      /log\.level = "loud": must be one of trace, debug, info, warn, error/,
    ],
    [
      'a number out of range',
      '[images]\nmax_parallel_downloads = 99',
      /images\.max_parallel_downloads = 99: must be 1 to 32/,
    ],
    [
      'a value of another type',
      '[metrics]\naddress = 5',
      /metrics\.address = 5: must be a text in quotes/,
    ],
    [
      'a relative path',
      '[paths]\nstate = "var/lib"',
      /paths\.state = "var\/lib": must be an absolute path/,
    ],
    [
      'a URL of another kind',
      '[nats]\nurl = "http://user:secret@host"',
      /nats\.url = "http:\/\/…@host": must be empty or begin with nats:\/\/ or tls:\/\//,
    ],
    [
      'a default handler that there is not',
      '[runtimes]\ndefault = "kata"',
      /runtimes\.default = "kata": must be one of the handlers runc, crun, gvisor/,
    ],
    [
      'a handler of no family',
      '[runtimes.handlers.mine]\nengine = "/bin/x"',
      /runtimes\.handlers\.mine\.family: is missing/,
    ],
    ['a text that is not TOML', '[log\nlevel = 1', /cribus\.toml:\d+: /],
  ];

  for (const [what, text, sentence] of MISTAKES) {
    it(`with ${what} is refused by a sentence that names key, value and what is allowed`, async () => {
      await writeFile(join(root, 'etc', 'cribus.toml'), `${text}\n`);
      for (const command of ['up', 'config']) {
        const { code, stdout, stderr } = await runCommand(CRIBUS, [command, '--root', root]);
        assert.equal(code, 1);
        assert.equal(stdout, '');
        assert.match(stderr, sentence);
        assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
        assert.ok(stderr.startsWith(`cribus: ${root}/etc/cribus.toml:`), stderr);
        assert.doesNotMatch(stderr, /secret/);
      }
    });
  }

  it('is printed whole by cribus config, each key with its sentence, and reads back the same', async () => {
    await writeFile(join(root, 'etc', 'cribus.toml'), '[log]\nlevel = "debug"\n');
    const { code, stdout } = await runCommand(CRIBUS, ['config', '--root', root]);
    assert.equal(code, 0);
    const printed = parseConfig(stdout, { file: 'printed' });
    const text = await readFile(join(root, 'etc', 'cribus.toml'), 'utf8');
    assert.deepEqual(printed, parseConfig(text, { file: 'cribus.toml', directory: root }));
    assert.equal(printed.log.level, 'debug');
    // Of several handlers only the first one's keys are explained.
    const tables = stdout.split(/^(?=\[)/m).filter((table) => !table.startsWith('[runtimes.'));
    const lines = tables.join('').split('\n');
    const keys = lines.filter((line) => /^[a-z_]+ = /.test(line));
    assert.ok(keys.length >= 20, `${keys.length} keys`);
    for (const key of keys) assert.match(lines[lines.indexOf(key) - 1] ?? '', /^# \S.*\.$/, key);
  });

  it('is read from another place with --config, and is in /etc/cribus for the system stack', async () => {
    const file = join(base, 'other.toml');
    await writeFile(file, '[gateway]\nsocket = "/run/other.sock"\n');
    const given = await runCommand(CRIBUS, ['config', '--config', file, '--root', root]);
    assert.match(given.stdout, /^socket = "\/run\/other\.sock"$/m);
    const missing = await runCommand(CRIBUS, ['config', '--config', join(base, 'none.toml')]);
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /^cribus: --config .*\/none\.toml: there is no such file\n$/);
    const system = await runCommand(CRIBUS, ['config', '--config', file]);
    for (const line of [
      'run = "/run/cribus"',
      'state = "/var/lib/cribus"',
      'etc = "/etc/cribus"',
      'conf_dir = "/etc/cni/net.d"',
      'bin_dirs = [ "/opt/cni/bin", "/usr/lib/cni" ]',
      'certs_dir = "/etc/cribus/certs.d"',
    ]) {
      assert.ok(system.stdout.split('\n').includes(line), line);
    }
  });
});
