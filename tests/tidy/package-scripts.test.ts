// The maintainer scripts of the Debian package as dpkg calls them (deb-policy, chapter 6), with a systemctl
// and a cribus that only keep in files what they were told.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, it } from 'mocha';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** What the scripts use of the host besides systemctl and cribus. */
const TOOLS = ['cat', 'grep', 'mkdir', 'rm', 'rmdir', 'timeout'];
/** Files `enabled` and `active` are the state of cribus.target. */
const SYSTEMCTL = `#!/bin/sh
echo "$*" >> "$FAKE/calls"
verb=$1
case " $* " in *" --now "*) rm -f "$FAKE/active" ;; esac
case $verb in
  is-enabled) [ -e "$FAKE/enabled" ] ;;
  is-active) [ -e "$FAKE/active" ] ;;
  enable) : > "$FAKE/enabled" ;;
  disable) rm -f "$FAKE/enabled" ;;
  start) [ -e "$FAKE/stuck" ] || : > "$FAKE/active" ;;
esac
`;
const CRIBUS = `#!/bin/sh
echo "cribus $*" >> "$FAKE/calls"
[ ! -e "$FAKE/pods-stay" ]
`;

describe('the scripts of the package', () => {
  let base = '';
  let said = '';
  const at = (name: string) => join(base, name);
  const isTarget = (state: 'enabled' | 'active') => existsSync(at(state));
  const calls = () => (existsSync(at('calls')) ? readFileSync(at('calls'), 'utf8') : '');

  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'scripts-'));
    mkdirSync(at('bin'));
    mkdirSync(at('run/systemd/system'), { recursive: true });
    for (const tool of TOOLS) symlinkSync(`/usr/bin/${tool}`, at(`bin/${tool}`));
    writeFileSync(at('bin/systemctl'), SYSTEMCTL, { mode: 0o755 });
    writeFileSync(at('bin/cribus'), CRIBUS, { mode: 0o755 });
  });
  afterEach(() => rmSync(base, { recursive: true }));

  /** True if it ended well; its paths are below the test's directory. */
  function call(name: 'postinst' | 'prerm' | 'postrm', ...words: readonly string[]): boolean {
    const text = readFileSync(join(root, 'deploy', 'debian', name), 'utf8');
    const moved = text.replace(/(?<![\w.])\/(run|var|etc|sys)\//g, `${base}/$1/`);
    const env = { PATH: at('bin'), FAKE: base };
    const { status, stderr } = spawnSync('/bin/sh', ['-c', moved, name, ...words], { env });
    said = String(stderr);
    assert.doesNotMatch(said, /not found|syntax/i);
    return status === 0;
  }

  const installed = () => assert.ok(call('postinst', 'configure', ''));

  it('enable and start it the first time', () => {
    installed();
    assert.ok(isTarget('enabled') && isTarget('active'));
    assert.match(
      calls(),
      /^enable [^\n]*\ndaemon-reload\nstart cribus-prepare.service cribus.target$/m,
    );
  });

  it('install it also where it does not start, and say who knows why', () => {
    writeFileSync(at('stuck'), '');
    installed();
    assert.match(said, /"cribus doctor" and "journalctl -u 'cribus-\*'" say why/);
  });

  it('restart at an upgrade what runs, and leave disabled what the operator disabled', () => {
    installed();
    rmSync(at('enabled'));
    writeFileSync(at('calls'), '');
    assert.ok(call('prerm', 'upgrade', '0.1.1'));
    assert.ok(call('postrm', 'upgrade', '0.1.1'));
    assert.ok(call('postinst', 'configure', '0.1.0'));
    assert.ok(!isTarget('enabled'));
    assert.match(calls(), /^try-restart cribus-prepare.service cribus.target$/m);
    assert.doesNotMatch(calls(), /^(enable|start|disable|stop)/m);
  });

  it('keep the lock of claims at an upgrade, which a service may hold', () => {
    mkdirSync(at('run/cribus-host'));
    writeFileSync(at('run/cribus-host/lock'), '');
    assert.ok(call('postrm', 'upgrade', '0.1.1'));
    assert.ok(existsSync(at('run/cribus-host/lock')));
    assert.ok(call('postrm', 'remove'));
    assert.ok(!existsSync(at('run/cribus-host')));
  });

  it('enable and start it again when it comes back after a removal', () => {
    installed();
    assert.ok(call('prerm', 'remove'));
    assert.ok(!isTarget('enabled') && !isTarget('active'));
    assert.ok(call('postrm', 'remove'));
    assert.ok(call('postinst', 'configure', '0.1.0'));
    assert.ok(isTarget('enabled') && isTarget('active'));
    // Once only.
    rmSync(at('enabled'));
    assert.ok(call('postinst', 'configure', '0.1.0'));
    assert.ok(!isTarget('enabled'));
  });

  it('leave it as the operator had it when it comes back', () => {
    installed();
    rmSync(at('enabled'));
    rmSync(at('active'));
    assert.ok(call('prerm', 'remove'));
    assert.ok(call('postinst', 'configure', '0.1.0'));
    assert.ok(!isTarget('enabled') && !isTarget('active'));
  });

  it('give the services back where a removal fails', () => {
    installed();
    writeFileSync(at('pods-stay'), '');
    assert.ok(!call('prerm', 'remove'));
    assert.ok(!isTarget('active'));
    assert.ok(call('postinst', 'abort-remove'));
    assert.ok(isTarget('enabled') && isTarget('active'));
    // A failure of another package's: nothing was taken away.
    writeFileSync(at('calls'), '');
    assert.ok(call('postinst', 'abort-deconfigure', 'in-favour', 'other', '1'));
    assert.doesNotMatch(calls(), /^(enable|start|try-restart)/m);
  });

  it('enable it where no systemd runs yet, and where there is none do nothing', () => {
    rmSync(at('run/systemd'), { recursive: true });
    installed();
    assert.ok(isTarget('enabled'));
    assert.equal(calls(), 'enable --quiet cribus.target\n');
    assert.ok(call('prerm', 'remove'));
    assert.ok(!isTarget('enabled'));
    rmSync(at('bin/systemctl'));
    installed();
    assert.ok(call('prerm', 'remove'));
  });
});
