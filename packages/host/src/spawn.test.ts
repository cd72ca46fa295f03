import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, it } from 'mocha';
import { identify, isAlive, waitForExit } from './processes.ts';
import { run, type SpawnOptions, spawn } from './spawn.ts';

type ShellOptions = Partial<SpawnOptions & { readonly signal: AbortSignal }>;
const shell = (script: string, options: ShellOptions = {}) =>
  run({ command: 'sh', args: ['-c', script], signal: AbortSignal.timeout(10_000), ...options });

describe('spawn', () => {
  it('captures both streams, feeds stdin, and reports the exit code', async () => {
    const result = await shell('cat; echo wrong >&2; exit 3', { stdin: Buffer.from('input') });
    assert.equal(result.exitCode, 3);
    assert.equal(result.signal, undefined);
    assert.equal(result.stdout.toString(), 'input');
    assert.equal(result.stderr.toString(), 'wrong\n');
  });

  it('feeds and captures more than a pipe holds, and stops collecting at the maximum', async () => {
    const stdin = Buffer.alloc(3_000_000, 'x');
    const whole = await shell('cat', { stdin, outputBytesMax: 4_000_000 });
    assert.ok(whole.stdout.equals(stdin));
    assert.equal(whole.truncated, false);
    const cut = await shell('cat', { stdin, outputBytesMax: 1000 });
    assert.equal(cut.stdout.length, 1000);
    assert.equal(cut.truncated, true);
  });

  it('survives a child that does not read its input', async () => {
    for (const bytes of [10, 3_000_000]) {
      const result = await shell('exec 0<&-; exit 4', { stdin: Buffer.alloc(bytes) });
      assert.equal(result.exitCode, 4);
    }
  });

  it('gives the child PATH alone, a session, default signals and its directory', async () => {
    const env = await run({ command: 'env', args: [], signal: AbortSignal.timeout(10_000) });
    assert.match(env.stdout.toString(), /^PATH=[^\n]*\n$/);
    const script = 'pwd; grep -E "^Sig(Ign|Blk)" /proc/self/status; cut -d" " -f1,6 /proc/$$/stat';
    const result = await shell(script, { cwd: '/usr', env: { PATH: '/usr/bin:/bin' } });
    const [cwd, blocked, ignored, ids] = result.stdout.toString().trim().split('\n');
    assert.equal(cwd, '/usr');
    assert.match(blocked ?? '', /^SigBlk:\s0+$/);
    // posix_spawn itself leaves 32 and 33 ignored, which glibc keeps for its threads.
    assert.match(ignored ?? '', /^SigIgn:\s0{7}[01]?[018]0+$/);
    const [pid, session] = (ids ?? '').split(' ');
    assert.equal(pid, session);
  });

  it('hands descriptors over, crossed and onto themselves, and no others', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'spawn-'));
    const a = openSync(join(directory, 'a'), 'w+');
    const b = openSync(join(directory, 'b'), 'w+');
    try {
      const fds = { [a]: b, [b]: a, [b + 20]: b };
      const script = `echo to-a >&${b}; echo to-b >&${a}; ls /proc/$$/fd; true`;
      const result = await run({
        command: 'bash',
        args: ['-c', script],
        fds,
        signal: AbortSignal.timeout(10_000),
      });
      assert.equal(readFileSync(join(directory, 'a'), 'utf8'), 'to-a\n');
      assert.equal(readFileSync(join(directory, 'b'), 'utf8'), 'to-b\n');
      const numbers = result.stdout.toString().trim().split('\n').map(Number);
      // 255 is bash's own copy of its script's terminal, when it has one.
      const expected = new Set([0, 1, 2, a, b, b + 20, 255]);
      assert.deepEqual(
        numbers.filter((number) => !expected.has(number)),
        [],
      );
      assert.ok(numbers.includes(b + 20));

      const same = await shell(`echo same >&${b}`, { fds: { [b]: b }, command: 'bash' });
      assert.equal(same.exitCode, 0, same.stderr.toString());
    } finally {
      closeSync(a);
      closeSync(b);
      rmSync(directory, { recursive: true });
    }
  });

  it('throws what hinders the start, and leaves no descriptor', () => {
    const before = readdirSync('/proc/self/fd').length;
    const start = (options: Partial<SpawnOptions>) => () =>
      spawn({ command: 'sh', args: [], stdin: 'pipe', ...options });
    assert.throws(start({ command: 'no-such-program' }), { code: 'ENOENT' });
    assert.throws(start({ command: '/etc/passwd' }), { code: 'EACCES', syscall: 'posix_spawn' });
    assert.throws(start({ cwd: '/absent' }), { code: 'ENOENT' });
    assert.throws(start({ fds: { 3: 9999 } }), { code: 'EBADF' });
    assert.equal(readdirSync('/proc/self/fd').length, before);
  });

  it('answers soon after the exit although a background child holds the output open', async () => {
    const result = await shell('sleep 5 & echo $!');
    const left = identify(Number(result.stdout.toString()));
    assert.ok(left !== undefined && isAlive(left));
    process.kill(left.pid, 'SIGKILL');
    await waitForExit(left, AbortSignal.timeout(5000));
  });

  it('kills the whole group when the signal aborts, and throws the reason', async () => {
    const before = performance.now();
    const signal = AbortSignal.timeout(100);
    const running = run({ command: 'sh', args: ['-c', 'sleep 61 & sleep 62'], signal });
    await assert.rejects(running, { name: 'TimeoutError' });
    assert.ok(performance.now() - before < 2000);
    await assert.rejects(shell('true', { signal: AbortSignal.abort(new Error('no')) }), /no/);
  });

  it('signals a child, tells which signal ended it, and is quiet afterwards', async () => {
    const child = spawn({ command: 'sleep', args: ['63'], stdout: 'null', stderr: 'null' });
    child.kill('SIGTERM');
    const result = await child.exited;
    assert.equal(result.signal, 15);
    assert.equal(result.exitCode, undefined);
    child.kill('SIGKILL');
    child.kill('SIGKILL', 'group');
  });

  it('speaks with a child over pipes', async () => {
    const child = spawn({ command: 'cat', args: [], stdin: 'pipe', stdout: 'pipe' });
    const chunks: Buffer[] = [];
    child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stdin?.write('one ');
    child.stdin?.end('two');
    assert.equal((await child.exited).exitCode, 0);
    assert.equal(Buffer.concat(chunks).toString(), 'one two');
  });

  it('reaps many at once beside child_process, each with its own code', async () => {
    const codes = Array.from({ length: 40 }, (_, index) => index);
    const theirs = promisify(execFile)('sh', ['-c', 'sleep 0.05; echo fine']);
    const results = await Promise.all(codes.map((code) => shell(`exit ${code}`)));
    assert.deepEqual(
      results.map((result) => result.exitCode),
      codes,
    );
    assert.equal((await theirs).stdout, 'fine\n');
  });
});
