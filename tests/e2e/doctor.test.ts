// `cribus doctor`, as a person with a broken node meets it.

import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pinNamespace } from '@cribus/host/namespaces.ts';
import { after, before, describe, it } from 'mocha';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { runSandbox } from './harness/pods.ts';
import { CRIBUS, runCommand, type Stack, startStack } from './harness/stack.ts';

describe('cribus doctor', () => {
  let host: HostSnapshot;
  let stack: Stack;

  before(async () => {
    host = snapshotHost();
    stack = await startStack();
  });
  after(async () => {
    await stack?.destroy();
    assertNothingLeaked(host);
  });

  it('finds nothing wrong with a stack that runs, and fits a screen', async () => {
    const { code, stdout } = await stack.cribus('doctor');
    assert.equal(code, 0, stdout);
    for (const about of ['kernel', 'cgroups', 'monitor', 'handler runc', 'handler gvisor']) {
      assert.match(stdout, new RegExp(`^ok +${about} `, 'm'));
    }
    assert.match(stdout, /^ok +cri-gateway +running, pid \d+$/m);
    assert.match(stdout, /^ok +socket +\S+cribus\.sock is served, closed to other users$/m);
    assert.match(stdout, /^ok +credentials +\d+ files in /m);
    assert.match(stdout, /^ok +leftovers +none of a crash$/m);
    for (const about of ['clock', 'disk', 'iptables', 'network', 'file systems', 'modules']) {
      assert.match(stdout, new RegExp(`^(ok|warn) +${about} `, 'm'));
    }
    const lines = stdout.trimEnd().split('\n');
    assert.ok(lines.length <= 40, `${lines.length} lines`);
    for (const line of lines) assert.ok(line.length <= 100, line);
  });

  it('names what a crash left and credentials that are open, and --fix --yes takes them away', async () => {
    const id = 'd'.repeat(64);
    const pins = join(stack.root, 'run', 'sandboxes', id);
    mkdirSync(pins, { recursive: true });
    pinNamespace('/proc/self/ns/uts', join(pins, 'uts'));
    const seed = join(stack.root, 'state', 'credentials', 'operator.nk');
    chmodSync(seed, 0o644);

    const found = await stack.cribus('doctor');
    assert.equal(found.code, 1);
    assert.match(found.stdout, /left over +namespaces of sandbox d{13}, which has no record/);
    assert.match(found.stdout, /credentials that others may read/);
    assert.ok(found.stdout.replaceAll(/\s+/g, ' ').includes('cribus doctor --fix'));

    const asked = await stack.cribus('doctor', '--fix');
    assert.equal(asked.code, 1);
    assert.match(asked.stderr, /asks first, and nobody is there: add --yes/);
    assert.ok(existsSync(pins));

    const fixed = await stack.cribus('doctor', '--fix', '--yes');
    assert.equal(fixed.code, 0, fixed.stdout + fixed.stderr);
    assert.match(fixed.stdout, /Taken away: namespaces of sandbox/);
    assert.ok(!existsSync(pins));
    assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(pins));
    assert.equal(statSync(seed).mode & 0o777, 0o600);
    assert.equal((await stack.cribus('doctor')).code, 0);
  });

  it('says which part does not run and where its log is, and what ended stacks leave', async () => {
    const { parts } = JSON.parse((await stack.cribus('status', '--json')).stdout);
    const pidOf = (name: string): number =>
      parts.find((part: { name: string }) => part.name === name).pid;
    process.kill(pidOf('image-service'), 'SIGSTOP');
    try {
      const { stdout } = await stack.cribus('doctor');
      assert.match(stdout, /^BAD +image-service +it runs and does not answer$/m);
      assert.ok(stdout.includes(join(stack.root, 'log', 'image-service.log')));
    } finally {
      process.kill(pidOf('image-service'), 'SIGCONT');
    }
    await runSandbox(stack);
    await stack.cribus('down');
    const left = await stack.cribus('doctor');
    assert.match(left.stdout, /^warn +stack +it is not running, and 1 pod of it is on record$/m);
    assert.match(
      left.stdout.replaceAll(/\s+/g, ' '),
      /"cribus down --root \S+ --pods" removes them/,
    );
    const never = await runCommand(CRIBUS, ['doctor', '--root', join(stack.root, 'never-up')]);
    assert.match(never.stdout, /^ok +stack +it is not running$/m);
  });

  it('says what to install where an engine is missing', async () => {
    const config = join(stack.root, 'etc', 'cribus.toml');
    writeFileSync(config, '[runtimes.handlers.runc]\nfamily = "runc"\nengine = "/no-such-runc"\n');
    const { code, stdout } = await stack.cribus('doctor', '--config', config);
    assert.equal(code, 1);
    const text = stdout.replaceAll(/\s+/g, ' ');
    assert.match(text, /BAD handler runc \/no-such-runc is not there → install/);
  });
});
