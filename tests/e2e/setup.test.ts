// What a newcomer does: set-up on machines that lack something, in a tree whose path has spaces and
// colons, and `npm start` until Ctrl-C. apt-get, dpkg-query and /usr/sbin are stood in for, in a mount
// namespace, so that the machine's own packages stay as they are.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { RunPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { connectCri } from './harness/cri.ts';
import { type Foreground, startForeground } from './harness/foreground.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { CRIBUS, eventually, PROJECT_ROOT, runCommand } from './harness/stack.ts';

const POLICY = '/usr/sbin/policy-rc.d';
/** By its own path: under npm `node` is a shell script of the workspace, which takes the signals. */
const NODE = `'${process.execPath}'`;
const OWN_POLICY = '#!/bin/sh\n# The machine has one of its own.\nexit 104\n';

describe('a newcomer, with the tree in a directory with a space and a colon in its name', () => {
  let base: string;
  let tree: string;
  let host: HostSnapshot;

  before(() => {
    host = snapshotHost();
    base = mkdtempSync(join(tmpdir(), 'cribus-e2e-'));
    tree = join(base, 'my projects: first', 'cribus');
    mkdirSync(tree, { recursive: true });
    execFileSync('sh', [
      '-c',
      'cd "$1" && tar -c --exclude=./.git --exclude=./.setup . | tar -x -C "$2"',
      'sh',
      PROJECT_ROOT,
      tree,
    ]);
    // As after `npm ci` and `pnpm install` there, which need the network.
    const script = `import { dependenciesDigest } from './scripts/setup.mjs';
process.stdout.write(dependenciesDigest(process.cwd()));`;
    const args = ['--input-type=module', '-e', script];
    const digest = execFileSync(process.execPath, args, { cwd: tree });
    mkdirSync(join(tree, '.setup'));
    writeFileSync(join(tree, '.setup', 'dependencies.sha256'), digest);
  });

  after(() => {
    rmSync(base, { recursive: true, force: true });
    assertNothingLeaked(host);
  });

  it('sets up a second time within 5 s, and without any network', async () => {
    await runCommand('npm', ['run', 'setup'], {}, { cwd: tree });
    const began = performance.now();
    const second = await runCommand('unshare', ['-n', 'npm', 'run', 'setup'], {}, { cwd: tree });
    const seconds = (performance.now() - began) / 1000;
    assert.equal(second.code, 0, second.stdout + second.stderr);
    assert.match(second.stdout, /^· Set-up: everything is there already\.$/m);
    assert.ok(seconds <= 5, `${seconds} s`);
  });

  it('is told what is needed where there is no root, and nothing is changed', async () => {
    for (const script of ['setup', 'start', 'test']) {
      const before = treeState();
      const { code, stdout, stderr } = await runCommand(
        'setpriv',
        ['--reuid=65534', '--regid=65534', '--clear-groups', 'npm', 'run', '--silent', script],
        { HOME: join(base, 'nowhere') },
        { cwd: PROJECT_ROOT },
      );
      assert.equal(code, 1, script);
      assert.equal(stdout, '');
      assert.match(stderr, /^Set-up needs root, [^\n]*nothing was changed\. Try it with sudo\.$/m);
      assert.deepEqual(treeState(), before);
    }
  });

  it('is told what is needed on a system that is not like Debian, and nothing is changed', async () => {
    const release = join(base, 'os-release');
    writeFileSync(release, 'ID=fedora\nID_LIKE="rhel centos"\n');
    const before = treeState();
    const { code, stderr } = await inMountNamespace(
      `mount --bind '${release}' "$(readlink -f /etc/os-release)" && npm run --silent setup`,
    );
    assert.equal(code, 1);
    assert.match(stderr, /^Set-up needs a Debian-like system, [^\n]*; nothing was changed\.\n$/);
    assert.deepEqual(treeState(), before);
  });

  describe('whose machine lacks two packages', () => {
    let bin: string;
    let asked: string;

    before(() => {
      bin = join(base, 'bin');
      asked = join(base, 'asked');
      mkdirSync(bin);
      program(
        'dpkg-query',
        `/usr/bin/dpkg-query "$@" | if [ -e '${base}/installed' ]; then cat
else grep -vE '^(crun|nats-server) '; fi`,
      );
      program(
        'apt-get',
        `case "$*" in *update*) exit 0;; esac
echo $$ > '${base}/apt.pid'
echo "$*" >> '${asked}'
${POLICY} nats-server start; echo "policy says $?" >> '${asked}'
if [ -e '${base}/slow' ]; then sleep 60 & trap 'kill $!; exit 100' INT TERM; wait; fi
touch '${base}/installed'`,
      );
      writeFileSync(join(base, 'policy'), OWN_POLICY, { mode: 0o755 });
    });

    for (const owned of [true, false]) {
      const its = owned ? "the machine's own policy-rc.d" : 'no policy-rc.d';
      it(`gets them without a service starting, and has ${its} again after`, async () => {
        rmSync(join(base, 'installed'), { force: true });
        writeFileSync(asked, '');
        const { code, stdout, stderr } = await inMountNamespace(
          `${preparePolicy(owned)} npm run --silent setup; code=$?; ${showPolicy} exit $code`,
        );
        assert.equal(code, 0, stderr);
        assert.match(stdout, /^· Installing 2 Debian packages/m);
        assert.match(stdout, /^· Installed: Debian packages crun, nats-server\.$/m);
        assert.match(readFileSync(asked, 'utf8'), /install .*crun nats-server\npolicy says 101\n/);
        assertPolicy(stdout, owned);
      });

      it(`has ${its} again after a set-up that was interrupted, or killed and run again`, async () => {
        rmSync(join(base, 'installed'), { force: true });
        writeFileSync(join(base, 'slow'), '');
        const interrupted = await inMountNamespace(
          `${preparePolicy(owned)} ${NODE} scripts/setup.mjs & pid=$!
           until grep -qs cribus ${POLICY}; do sleep 0.1; done; sleep 0.3; kill -TERM $pid
           wait $pid; code=$?; ${showPolicy} exit $code`,
        );
        assert.equal(interrupted.code, 130, interrupted.stderr);
        assert.match(interrupted.stderr, /^Set-up was interrupted; run it again to finish it\.$/m);
        assertPolicy(interrupted.stdout, owned);

        const killed = await inMountNamespace(
          `${preparePolicy(owned)} ${NODE} scripts/setup.mjs & pid=$!
           until grep -qs cribus ${POLICY}; do sleep 0.1; done; sleep 0.3; kill -KILL $pid
           wait $pid; kill $(cat '${base}/apt.pid'); rm '${base}/slow'
           ${NODE} scripts/setup.mjs; code=$?; ${showPolicy} exit $code`,
        );
        assert.equal(killed.code, 0, killed.stderr);
        assertPolicy(killed.stdout, owned);
      });
    }

    function program(name: string, script: string): void {
      writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
      chmodSync(join(bin, name), 0o755);
    }

    /** /usr/sbin is an overlay, so the machine's own stays untouched. */
    function preparePolicy(owned: boolean): string {
      const upper = mkdtempSync(join(base, 'sbin-'));
      mkdirSync(join(upper, 'u'));
      mkdirSync(join(upper, 'w'));
      return `mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=${upper}/u,workdir=${upper}/w \
/usr/sbin && rm -f ${POLICY}; ${owned ? `cp '${base}/policy' ${POLICY};` : ''} PATH='${bin}':$PATH;`;
    }
  });

  const showPolicy = `echo "policy: $(cat ${POLICY} 2>/dev/null | base64 -w0)"; ls ${POLICY}.* 2>&1;`;

  function assertPolicy(output: string, owned: boolean): void {
    const text = /^policy: (.*)$/m.exec(output)?.[1] ?? '?';
    assert.equal(Buffer.from(text, 'base64').toString(), owned ? OWN_POLICY : '');
    assert.match(output, /cannot access '\/usr\/sbin\/policy-rc\.d\.\*'|No such file/);
  }

  function inMountNamespace(script: string) {
    const args = ['-m', '--propagation', 'private', 'sh', '-c', script];
    return runCommand('unshare', args, { LC_ALL: 'C' }, { cwd: tree });
  }

  function treeState(): unknown {
    const files = ['.setup', 'dist/cribus.mjs', 'node_modules', 'package.json'];
    return files.map((name) => {
      const path = join(PROJECT_ROOT, name);
      return existsSync(path) ? [name, statSync(path).mtimeMs] : [name];
    });
  }

  for (const terminal of [false, true]) {
    const where = terminal ? 'on a terminal' : 'into a pipe';
    it(`starts ${where}: two kernels, at most 40 lines of 100 columns, and all gone at Ctrl-C`, async () => {
      const root = join(base, terminal ? 'pty' : 'pipe');
      const start = startForeground('npm', ['start', '--', '--root', root], {
        cwd: tree,
        terminal,
      });
      await start.prints(/^Serving CRI until Ctrl-C/m, 60_000);
      const shown = start.output();
      assert.match(shown, /^ +runc +gvisor\s*$/m);
      assert.match(shown, /^ +uname -a +Linux tour-runc \d.* Linux tour-gvisor 4\./m);
      assert.match(shown, /^ +GET \/ +200 hello from a pod +200 hello from a pod\s*$/m);
      assert.match(shown, /^ +log .*response:200|^ +log +serving on port 80/m);
      assert.match(shown, /^POD ID +CREATED +STATE/m);
      assert.match(shown, /^CONTAINER +IMAGE +CREATED/m);
      assert.match(shown, /^ +metrics +http:\/\/127\.0\.0\.1:\{\d+,/m);
      assert.match(shown, /^ +dashboards +deploy\/grafana/m);
      assert.match(shown, /^ +crictl --runtime-endpoint .*unix:\/\//m);
      assert.equal((await pods(root)).length, 0, "the tour's own pods are gone");

      start.kill('SIGINT', { group: true });
      // npm itself ends as interrupted.
      await start.ended;
      // A terminal shows the keys.
      const all = stripVTControlCharacters(start.output()).replaceAll('^C', '');
      assert.match(all, /^Stopped\.\s*$/m);
      assert.match(all, /^Stopped and removed 0 pods\.\s*$/m);
      const lines = all
        .replace(/^npm (warn|notice).*\r?\n/gm, '')
        .trimEnd()
        .split(/\r?\n/);
      assert.ok(lines.length <= 40, `${lines.length} lines`);
      // A root with a long path makes the lines longer that name it.
      const long = lines
        .map((line) => line.replaceAll(root, '/r'))
        .filter((one) => one.length > 100);
      assert.deepEqual(long, []);
    });
  }

  describe('that has pods when Ctrl-C comes', () => {
    for (const { title, signals, left } of [
      { title: 'says how many it will remove, and removes them', signals: ['SIGINT'], left: 0 },
      {
        title: 'leaves them running at a second one within 10 s',
        signals: ['SIGINT', 'SIGINT'],
        left: 2,
      },
      { title: 'removes them at once when it is SIGTERM', signals: ['SIGTERM'], left: 0 },
    ] as const) {
      it(title, async () => {
        const root = join(base, 'ephemeral');
        const up = startForeground(CRIBUS, ['up', '--ephemeral', '--root', root]);
        await up.prints(/^ {2}stop /m);
        await runTwoPods(root);
        const began = performance.now();
        for (const [index, signal] of signals.entries()) {
          if (index > 0)
            await up.prints(/^2 pods will be stopped and removed in 10 s; Ctrl-C again /m);
          if (index > 0) await new Promise((done) => setTimeout(done, 500));
          up.kill(signal);
        }
        await finish(up, { root, left, began, waits: signals.join() === 'SIGINT' });
      });
    }

    async function finish(
      up: Foreground,
      how: { root: string; left: number; began: number; waits: boolean },
    ): Promise<void> {
      const { code, stdout } = await up.ended;
      const seconds = (performance.now() - how.began) / 1000;
      assert.equal(code, 0);
      if (how.left === 0) {
        assert.match(stdout, /^Stopped and removed 2 pods\.$/m);
        assert.match(stdout, /^Stopped\.$/m);
        assert.ok(how.waits ? seconds >= 9.5 : seconds < 9.5, `${seconds} s`);
        assertNothingLeaked(host);
        return;
      }
      assert.match(stdout, /^The pods are left running\.$/m);
      const again = await runCommand(CRIBUS, ['up', '--detach', '--root', how.root]);
      assert.equal(again.code, 0);
      assert.equal((await pods(how.root)).filter((line) => / Ready /.test(line)).length, how.left);
      assert.equal((await runCommand(CRIBUS, ['down', '--pods', '--root', how.root])).code, 0);
      assertNothingLeaked(host);
    }
  });

  async function runTwoPods(root: string): Promise<void> {
    const cri = connectCri(`unix://${root}/run/cribus.sock`);
    for (const name of ['one', 'two']) {
      const config = { metadata: { name, uid: name, namespace: 'default', attempt: 0 }, linux: {} };
      await cri.call('runPodSandbox', RunPodSandboxRequest.fromPartial({ config }));
    }
    cri.close();
  }

  async function pods(root: string): Promise<string[]> {
    const listed = await eventually('pods are listed', async () => {
      const result = await runCommand(CRIBUS, ['pods', '--root', root]);
      return result.code === 0 && result;
    });
    return listed.stdout.trimEnd().split('\n').slice(1);
  }
});
