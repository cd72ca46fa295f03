import assert from 'node:assert/strict';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stackPaths } from '@cribus/contracts/paths.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { monitorOf } from './lost-containers.ts';
import {
  checkClock,
  checkCredentials,
  checkHandlers,
  checkSocket,
  openCredentials,
} from './stack-checks.ts';

describe('the checks of a stack', () => {
  let base = '';
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'doctor-'));
  });
  afterEach(() => rmSync(base, { recursive: true }));

  const look = (socket: string) =>
    checkSocket({ gateway: { socket } } as Parameters<typeof checkSocket>[0]);

  it('tell a socket that is served from one that is left, open to others, or none', async () => {
    const path = join(base, 's');
    assert.equal((await look(path)).level, 'ok');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    chmodSync(path, 0o600);
    assert.match((await look(path)).text, /is served/);
    chmodSync(path, 0o666);
    assert.equal((await look(path)).level, 'problem');
    assert.match((await look(path)).advice ?? '', /chmod o=/);
    chmodSync(path, 0o660);
    // A name of a socket that outlives its listener, as after a kill.
    linkSync(path, join(base, 'left'));
    await new Promise((resolve) => server.close(resolve));
    assert.match((await look(join(base, 'left'))).text, /nobody serves it/);
    writeFileSync(join(base, 'file'), '');
    assert.equal((await look(join(base, 'file'))).level, 'problem');
  });

  it('find credentials that others may read', async () => {
    const paths = stackPaths({ run: base, state: base, etc: base, log: base });
    assert.equal((await checkCredentials(paths))?.level, 'ok');
    mkdirSync(paths.credentialsDirectory, { mode: 0o700, recursive: true });
    const seed = join(paths.credentialsDirectory, 'seed');
    writeFileSync(seed, '', { mode: 0o600 });
    assert.match((await checkCredentials(paths))?.text ?? '', /^1 file /);
    chmodSync(seed, 0o640);
    assert.deepEqual(await openCredentials(paths), [seed]);
    assert.equal(await checkCredentials(paths), undefined);
  });

  it('tell containers whose handler left the configuration', async () => {
    const roots = { run: join(base, 'run'), state: base, etc: base, log: base };
    const paths = stackPaths(roots);
    const config = { runtimes: { handlers: { runc: {} } } } as unknown as Parameters<
      typeof checkHandlers
    >[1];
    const id = 'a'.repeat(64);
    for (const token of ['runc', 'kata', 'empty']) {
      mkdirSync(join(base, 'handlers', token, 'containers'), { recursive: true });
    }
    for (const token of ['runc', 'kata'])
      mkdirSync(join(base, `handlers/${token}/containers/${id}`));
    const findings = await checkHandlers(paths, config);
    assert.deepEqual(
      findings.map(({ about, level }) => [about, level]),
      [['handler kata', 'problem']],
    );
    assert.match(findings[0]?.text ?? '', /^1 container is /);
  });

  it('know a monitor of this stack by its command line', () => {
    const roots = { run: join(base, 'run'), state: base, etc: base, log: base };
    const id = 'a'.repeat(64);
    const bundle = join(base, 'run/handlers/kata', id);
    const words = ['-c', id, '-r', '/usr/bin/kata', '-b', bundle];
    const monitor = { token: 'kata', id, engine: '/usr/bin/kata' };
    assert.deepEqual(monitorOf(roots, ['/usr/bin/conmon', ...words]), monitor);
    assert.equal(monitorOf(roots, ['sleep', ...words]), undefined);
    assert.equal(monitorOf({ ...roots, run: '/other' }, ['conmon', ...words]), undefined);
  });

  it('see that a clock went back', () => {
    assert.equal(checkClock(base).level, 'ok');
    assert.equal(checkClock(join(base, 'absent')).level, 'ok');
    utimesSync(base, 0, 4_000_000_000);
    assert.match(checkClock(base).text, / is before 2096-/);
  });
});
