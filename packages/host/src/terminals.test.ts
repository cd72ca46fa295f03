// Pseudo terminals with a real child on the other side.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { describe, it } from 'mocha';
import { spawn } from './spawn.ts';
import { openTerminal } from './terminals.ts';

function onTerminal(script: string, options: { readonly raw: boolean }) {
  const terminal = openTerminal(options);
  const { slaveFd } = terminal;
  const child = spawn({
    command: 'sh',
    args: ['-c', script],
    stdout: 'null',
    stderr: 'null',
    fds: { 0: slaveFd, 1: slaveFd, 2: slaveFd },
  });
  terminal.closeSlave();
  const master = terminal.openMaster();
  let said = '';
  master.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  // Which of the two comes depends on what was read last.
  const ended = new Promise<void>((resolve, reject) => {
    master.on('end', resolve);
    master.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EIO') resolve();
      else reject(error);
    });
  }).then(() => {
    said += terminal.readRest().toString();
  });
  const until = async (text: string) => {
    while (!said.includes(text)) await new Promise((resolve) => master.once('data', resolve));
    return said;
  };
  return { terminal, child, master, ended, until, said: () => said };
}

describe('a pseudo terminal', () => {
  it('carries both ways, is resized, and ends when its last slave is closed', async () => {
    const script = 'tty -s && stty size; read line; stty size; echo "got $line"';
    const { terminal, child, master, ended, until, said } = onTerminal(script, { raw: false });
    await until('0 0');
    terminal.resize({ columns: 132, rows: 43 });
    master.write('abc\n');
    await ended;
    assert.match(said(), /abc\r\n43 132\r\ngot abc\r\n$/);
    assert.equal((await child.exited).exitCode, 0);
    terminal.close();
    terminal.resize({ columns: 1, rows: 1 });
  });

  it('passes bytes as they are if raw, more than fit at once, without blocking', async () => {
    const count = 300_000;
    const script = `head -c ${count} | cksum`;
    const { terminal, master, ended, said } = onTerminal(script, { raw: true });
    master.write(Buffer.alloc(count, '\x03\x04\r\n'));
    await ended;
    const direct = spawn({
      command: 'cksum',
      args: [],
      stdin: Buffer.alloc(count, '\x03\x04\r\n'),
    });
    assert.equal(said(), (await direct.exited).stdout.toString());
    terminal.close();
  });

  it('gives all that was written before it was closed', async () => {
    for (let round = 0; round < 5; round += 1) {
      const { terminal, ended, said } = onTerminal('seq 1 9000', { raw: true });
      await ended;
      assert.equal(said(), Array.from({ length: 9000 }, (_, index) => `${index + 1}\n`).join(''));
      terminal.close();
    }
  });

  it('says which signals its characters stand for, none when it is raw', () => {
    const fresh = openTerminal({ raw: false });
    assert.deepEqual(fresh.signalsOf(Buffer.from('a\x03b')), ['SIGINT']);
    assert.deepEqual(fresh.signalsOf(Buffer.from('\x1c\x1a')), ['SIGQUIT', 'SIGTSTP']);
    assert.deepEqual(fresh.signalsOf(Buffer.from('\0ab\r')), []);
    fresh.close();
    const raw = openTerminal({ raw: true });
    assert.deepEqual(raw.signalsOf(Buffer.from('\x03')), []);
    raw.close();
  });

  it('leaves no descriptor when it is closed', async () => {
    const open = () =>
      readdirSync('/proc/self/fd').filter((fd) => existsSync(`/proc/self/fd/${fd}`));
    const before = open().length;
    for (let round = 0; round < 20; round += 1) {
      const { terminal, child, master } = onTerminal('sleep 60', { raw: true });
      child.kill('SIGKILL');
      terminal.close();
      await Promise.all([child.exited, new Promise((resolve) => master.once('close', resolve))]);
    }
    assert.ok(open().length <= before);
    const unused = openTerminal({ raw: false });
    unused.close();
    assert.ok(open().length <= before);
  });
});
