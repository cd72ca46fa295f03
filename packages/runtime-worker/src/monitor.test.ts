import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { type MonitorOptions, monitorArgv, monitorLogPath, parseSyncMessage } from './monitor.ts';

const OPTIONS: MonitorOptions = {
  conmon: 'conmon',
  id: 'abc',
  name: 'web',
  engine: '/usr/sbin/runc',
  engineArgs: ['--root', '/run/a b'],
  bundle: '/run/x',
  pidFile: '/run/x/pid',
  monitorPidFile: '/run/x/monitor-pid',
  logPath: '/var/log/pods/p/0.log',
  exits: '/state/exits',
  persist: '/state/persist',
  tty: false,
  stdin: false,
  stdinOnce: false,
};

describe("the monitor's command line", () => {
  it('hands each engine argument over on its own', () => {
    const argv = monitorArgv(OPTIONS);
    assert.deepEqual(argv.slice(argv.indexOf('-r'), argv.indexOf('-b')), [
      '-r',
      '/usr/sbin/runc',
      '--runtime-arg',
      '--root',
      '--runtime-arg',
      '/run/a b',
    ]);
    assert.ok(argv.includes('k8s-file:/var/log/pods/p/0.log'));
    assert.ok(!argv.includes('-i') && !argv.includes('-t'));
  });

  it('leaves stdin open unless it is for one client only', () => {
    assert.ok(monitorArgv({ ...OPTIONS, stdin: true }).includes('--leave-stdin-open'));
    const once = monitorArgv({ ...OPTIONS, stdin: true, stdinOnce: true });
    assert.ok(once.includes('-i') && !once.includes('--leave-stdin-open'));
    const terminal = monitorArgv({ ...OPTIONS, stdin: true, stdinOnce: true, tty: true });
    assert.ok(terminal.includes('--leave-stdin-open'));
  });

  it('keeps no log where there is no path for one', () => {
    const argv = monitorArgv({ ...OPTIONS, logPath: '' });
    assert.equal(argv[argv.indexOf('-l') + 1], 'none');
  });

  it('goes around a colon in the log path by a link', () => {
    assert.equal(monitorLogPath('/a:b/0.log'), 'log-directory/0.log');
    assert.equal(monitorLogPath('/a b/0.log'), '/a b/0.log');
  });
});

describe("the monitor's word", () => {
  it('is a pid, or what the engine said', () => {
    assert.deepEqual(parseSyncMessage('{"data": 42}\n'), { kind: 'created', pid: 42 });
    assert.deepEqual(parseSyncMessage('{"data": -1, "message": "no such file\\n"}\n'), {
      kind: 'failed',
      message: 'no such file',
    });
    assert.equal(parseSyncMessage('').kind, 'failed');
  });
});
