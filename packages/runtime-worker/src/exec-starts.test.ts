// In which order commands are started where some hang.

import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'mocha';
import { createExecStarts, type ExecStarts } from './exec-starts.ts';

const never = new AbortController().signal;
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('starts of commands', () => {
  let starts: ExecStarts;
  /** Those that run, by name; to be ended. */
  let running: Map<string, (hangs: boolean) => void>;

  beforeEach(() => {
    starts = createExecStarts(2);
    running = new Map();
  });

  const start = (sandbox: string, name: string, signal = never) =>
    starts.run(
      sandbox,
      () =>
        new Promise<{ readonly hangs: boolean }>((resolve) => {
          running.set(name, (hangs) => {
            running.delete(name);
            resolve({ hangs });
          });
        }),
      signal,
    );
  const end = async (name: string, { hangs }: { readonly hangs: boolean }) => {
    running.get(name)?.(hangs);
    await turn();
  };
  const names = () => [...running.keys()].sort();

  it('are so many at once as there are places', async () => {
    for (const name of ['a1', 'a2', 'a3', 'a4']) void start('a', name);
    await turn();
    assert.deepEqual(names(), ['a1', 'a2']);
    await end('a1', { hangs: false });
    assert.deepEqual(names(), ['a2', 'a3']);
  });

  it('take no place of the others where a sandbox hangs, and follow each other there', async () => {
    for (const name of ['a1', 'a2', 'a3', 'a4']) void start('a', name);
    for (const name of ['b1', 'b2']) void start('b', name);
    await turn();
    await end('a1', { hangs: true });
    await end('a2', { hangs: true });
    assert.deepEqual(names(), ['a3', 'b1', 'b2']);
    void start('a', 'a5');
    await end('a3', { hangs: true });
    assert.deepEqual(names(), ['a4', 'b1', 'b2']);
    await end('a4', { hangs: false });
    assert.deepEqual(names(), ['a5', 'b1', 'b2']);
  });

  it('have a place again once one was done in time, or the sandbox is another', async () => {
    for (const again of ['in time', 'another']) {
      void start('a', 'a1');
      await turn();
      await end('a1', { hangs: true });
      if (again === 'another') starts.forget('a');
      void start('a', 'a2');
      void start('a', 'a3');
      await turn();
      assert.deepEqual(names(), again === 'another' ? ['a2', 'a3'] : ['a2']);
      await end('a2', { hangs: false });
      await end('a3', { hangs: false });
    }
  });

  it('wait no longer than their caller', async () => {
    const gone = new AbortController();
    void start('a', 'a1');
    await turn();
    await end('a1', { hangs: true });
    void start('a', 'a2');
    const waiting = start('a', 'a3', gone.signal);
    gone.abort(new Error('gone'));
    await assert.rejects(waiting, /gone/);
    await end('a2', { hangs: true });
    assert.deepEqual(names(), []);
  });
});
