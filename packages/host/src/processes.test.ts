import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, it } from 'mocha';
import {
  commandLine,
  identify,
  isAlive,
  listByEnvironment,
  listPids,
  signalProcess,
  waitForExit,
  watchProcesses,
} from './processes.ts';
import { spawn } from './spawn.ts';

function startSleep() {
  const child = spawn({ command: 'sleep', args: ['64'], stdout: 'null', stderr: 'null' });
  const identity = identify(child.pid);
  assert.ok(identity);
  return { child, identity };
}

describe('processes', () => {
  it('knows a process by more than its number', async () => {
    const { child, identity } = startSleep();
    assert.ok(isAlive(identity));
    assert.ok(listPids().includes(child.pid));
    // The kernel lets the parent go on before the new program's arguments are in place.
    while (commandLine(child.pid).length === 0) await sleep(5);
    assert.deepEqual(commandLine(child.pid), ['sleep', '64']);
    const startTimeTicks = identity.startTimeTicks + 1n;
    assert.equal(isAlive({ ...identity, startTimeTicks }), false);
    assert.equal(isAlive({ ...identity, bootId: 'another' }), false);
    assert.equal(signalProcess({ ...identity, startTimeTicks }, 'SIGKILL'), false);
    assert.ok(isAlive(identity));
    assert.equal(signalProcess(identity, 'SIGKILL'), true);
    assert.equal((await child.exited).signal, 9);
    assert.equal(identify(child.pid), undefined);
    assert.equal(signalProcess(identity, 'SIGKILL'), false);
    assert.deepEqual(commandLine(child.pid), []);
  });

  it('finds a process, and what it started, by a variable of their environment', async () => {
    const value = randomUUID();
    const child = spawn({
      command: 'sh',
      args: ['-c', 'sleep 64 & wait'],
      env: { PATH: process.env['PATH'] ?? '', CRIBUS_TEST: value },
      stdout: 'null',
      stderr: 'null',
    });
    let found = listByEnvironment('CRIBUS_TEST', value);
    while (found.length < 2) {
      await sleep(5);
      found = listByEnvironment('CRIBUS_TEST', value);
    }
    assert.ok(found.some(({ pid }) => pid === child.pid));
    for (const identity of found) signalProcess(identity, 'SIGKILL');
    await child.exited;
    for (const identity of found) await waitForExit(identity, AbortSignal.timeout(5_000));
    assert.deepEqual(listByEnvironment('CRIBUS_TEST', value), []);
  });

  it('calls back once for each that ends or is gone, never for a closed one', async () => {
    const before = readdirSync('/proc/self/fd').length;
    const watch = watchProcesses({ intervalMs: 5 });
    const started = [startSleep(), startSleep(), startSleep()] as const;
    const ended: number[] = [];
    const entries = started.map(({ identity }) =>
      watch.add(identity, () => ended.push(identity.pid)),
    );
    entries[2]?.close();
    for (const { child } of started) child.kill('SIGKILL');
    await Promise.all(started.map(({ child }) => child.exited));
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.deepEqual(new Set(ended), new Set([started[0].child.pid, started[1].child.pid]));
    assert.equal(ended.length, 2);
    await new Promise<void>((resolve) => watch.add(started[0].identity, resolve));
    watch.add(started[0].identity, () => ended.push(0)).close();
    watch.close();
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(ended.length, 2);
    assert.equal(readdirSync('/proc/self/fd').length, before);
  });

  it('waits for an exit, or until the signal', async () => {
    const { child, identity } = startSleep();
    await assert.rejects(waitForExit(identity, AbortSignal.timeout(20)), { name: 'TimeoutError' });
    const waiting = waitForExit(identity, AbortSignal.timeout(5000));
    child.kill('SIGKILL');
    await waiting;
    await waitForExit(identity, AbortSignal.timeout(5000));
    await child.exited;
  });
});
