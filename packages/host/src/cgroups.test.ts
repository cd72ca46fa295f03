import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'mocha';
import { type CgroupHost, detectCgroups } from './cgroups.ts';
import { cgroupV2 } from './cgroups-v2.ts';
import { listMounts, parseMountinfo } from './mounts.ts';
import { type Child, spawn } from './spawn.ts';

const signal = () => AbortSignal.timeout(10_000);

describe('cgroups of this host', () => {
  const host: CgroupHost = detectCgroups();
  const top = `/cgroups-test-${process.pid}`;
  const path = `${top}/pod/container`;
  afterEach(async () => {
    if (host.exists(top)) await host.killAll(top, signal());
    host.remove(top);
  });

  const startIn = async (where: string, script: string): Promise<Child> => {
    const child = spawn({ command: 'sh', args: ['-c', `read go; ${script}`], stdin: 'pipe' });
    await host.join(where, child.pid);
    child.stdin?.end('go\n');
    return child;
  };

  it('creates once, tells so, and removes with all below, twice', () => {
    assert.equal(host.exists(path), false);
    assert.equal(host.create(path), true);
    assert.equal(host.create(path), false);
    assert.equal(host.create(top), false);
    assert.equal(host.exists(path), true);
    host.remove(top);
    assert.equal(host.exists(top), false);
    host.remove(top);
    assert.equal(host.create(path), true);
  });

  it('creates below what is there, and nothing above it', () => {
    assert.equal(host.createBelow(`${top}/pod`, 'container'), false);
    assert.equal(host.isAbsent(top), true);
    host.create(`${top}/pod`);
    assert.equal(host.createBelow(`${top}/pod`, 'container'), true);
    assert.equal(host.createBelow(`${top}/pod`, 'container'), true);
    assert.equal(host.exists(path), true);
    assert.equal(host.removeEmpty(path), true);
    assert.equal(host.isAbsent(path), true);
  });

  it('holds processes, counts their use, and refuses to go before them', async () => {
    host.create(path);
    const child = await startIn(path, 'for i in $(seq 20000); do :; done; sleep 65 & wait');
    let usage = host.usage(path);
    const isCounted = () =>
      (usage.cpuNs ?? 0n) > 0n &&
      (usage.memoryUsageBytes ?? 0n) > 0n &&
      (usage.processCount ?? 0n) >= 2n;
    for (let tries = 0; !isCounted() && tries < 500; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      usage = host.usage(path);
    }
    assert.ok(host.pids(top).includes(child.pid));
    assert.ok((usage.cpuNs ?? 0n) > 0n);
    assert.ok((usage.memoryUsageBytes ?? 0n) > 0n);
    assert.ok((usage.memoryWorkingSetBytes ?? -1n) <= (usage.memoryUsageBytes ?? 0n));
    assert.ok((usage.processCount ?? 0n) >= 2n);
    assert.equal(host.oomKills(path), 0);
    assert.throws(() => host.remove(top), { code: 'EBUSY' });
    assert.equal(host.exists(path), true);
    await host.killAll(top, signal());
    assert.equal((await child.exited).signal, 9);
    assert.deepEqual(host.pids(top), []);
  });

  it('counts more processes than the kernel lists in one reading', async () => {
    host.create(path);
    const child = await startIn(
      path,
      'i=0; while [ $i -lt 1500 ]; do sleep 66 & i=$((i+1)); done; wait',
    );
    for (let tries = 0; host.pids(path).length < 1501 && tries < 500; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.equal(host.usage(path).processCount, 1501n);
    await host.killAll(top, signal());
    await child.exited;
  });

  it('kills what forks as fast as it can', async () => {
    host.create(path);
    const child = await startIn(path, 'while :; do (sleep 66 &) ; sleep 0.01; done');
    await new Promise((resolve) => setTimeout(resolve, 150));
    await host.killAll(top, signal());
    assert.equal((await child.exited).signal, 9);
    host.remove(top);
    assert.equal(host.exists(top), false);
  });

  it('is silent about the absent and refuses the root and paths that lead upwards', async () => {
    assert.deepEqual(host.pids('/absent'), []);
    assert.deepEqual(host.usage('/absent'), {});
    assert.equal(host.oomKills('/absent'), undefined);
    await host.killAll('/absent', signal());
    for (const wrong of ['/', '/../x', 'relative', '//']) {
      assert.throws(() => host.create(wrong), { code: 'EINVAL' });
      assert.throws(() => host.remove(wrong), { code: 'EINVAL' });
      await assert.rejects(host.killAll(wrong, signal()), { code: 'EINVAL' });
    }
  });

  it('removes what an engine made in the cgroup2 mount of a hybrid host', () => {
    const mount = listMounts().find(
      ({ filesystem, mountPoint }) =>
        filesystem === 'cgroup2' && mountPoint.startsWith('/sys/fs/cgroup/'),
    );
    host.create(path);
    // A host without such a mount has one directory less to remove.
    if (mount !== undefined) mkdirSync(`${mount.mountPoint}${path}`, { recursive: true });
    host.remove(top);
    assert.equal(host.exists(top), false);
    if (mount !== undefined) assert.equal(existsSync(`${mount.mountPoint}${top}`), false);
  });

  it('agrees with the mounts on the version', () => {
    const unified = listMounts().some(
      (mount) => mount.mountPoint === '/sys/fs/cgroup' && mount.filesystem === 'cgroup2',
    );
    assert.equal(host.version, unified ? 'v2' : 'v1');
    assert.ok(host.controllers.includes('memory'));
  });
});

describe('cgroups by the table of mounts', () => {
  const detect = (lines: readonly string[]) => detectCgroups(parseMountinfo(lines.join('\n')));
  it('tells hybrid from unified, and controllers from options', () => {
    const hybrid = detect([
      '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755',
      '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct,clone_children',
      '40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,release_agent=/x,name=systemd',
      '41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate',
    ]);
    assert.equal(hybrid.version, 'v1');
    assert.deepEqual(hybrid.controllers, ['cpu', 'cpuacct', 'name=systemd']);
    const unified = detect(['30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate']);
    assert.equal(unified.version, 'v2');
    assert.throws(() => detect(['30 23 0:26 / /proc rw - proc proc rw']), { code: 'ENODEV' });
  });
});

describe('cgroup v2 on a tree of plain files', () => {
  let root = '';
  afterEach(() => rmSync(root, { recursive: true }));

  function makeRoot(): CgroupHost {
    root = mkdtempSync(join(tmpdir(), 'cgroup2-'));
    writeFileSync(join(root, 'cgroup.controllers'), 'cpuset cpu memory pids\n');
    writeFileSync(join(root, 'cgroup.subtree_control'), 'cpu');
    return cgroupV2(root);
  }

  it('hands the missing controllers down each level above the new cgroup', () => {
    const host = makeRoot();
    assert.deepEqual(host.controllers, ['cpuset', 'cpu', 'memory', 'pids']);
    mkdirSync(join(root, 'pods'));
    writeFileSync(join(root, 'pods', 'cgroup.controllers'), 'memory\n');
    writeFileSync(join(root, 'pods', 'cgroup.subtree_control'), '');
    assert.equal(host.create('/pods/one'), true);
    const handedDown = (...names: string[]) =>
      readFileSync(join(root, ...names, 'cgroup.subtree_control'), 'utf8');
    assert.equal(handedDown(), '+cpuset +memory +pids');
    assert.equal(handedDown('pods'), '+memory');
    assert.ok(!existsSync(join(root, 'pods', 'one', 'cgroup.subtree_control')));
    assert.equal(host.create('/pods/one'), false);
    writeFileSync(join(root, 'pods', 'cgroup.subtree_control'), '');
    assert.equal(host.createBelow('/pods', 'two'), true);
    assert.equal(handedDown('pods'), '', 'the pod is not ours to change');
    assert.equal(host.removeEmpty('/pods/two'), true);
    host.remove('/pods/one');
    assert.equal(host.exists('/pods/one'), false);
  });

  it('reads use and kills, and counts processes at all depths', async () => {
    const host = makeRoot();
    const files: Readonly<Record<string, string>> = {
      'cpu.stat': 'usage_usec 1500\nuser_usec 1000\n',
      'memory.current': '1000\n',
      'memory.stat': 'anon 300\ninactive_file 400\npgfault 5\npgmajfault 1\n',
      'memory.swap.current': '7\n',
      'memory.events': 'low 0\noom 3\noom_kill 2\n',
      'pids.current': '4\n',
      'memory.max': '4000\n',
      'memory.swap.max': 'max\n',
      'cpu.pressure': 'some avg10=1.50 avg60=0.20 avg300=0.00 total=77\n',
      'cgroup.procs': '',
    };
    mkdirSync(join(root, 'a', 'b'), { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(root, 'a', name), text);
    writeFileSync(join(root, 'a', 'b', 'cgroup.procs'), '0\n4194305\n');
    assert.deepEqual(host.usage('/a'), {
      cpuNs: 1_500_000n,
      memoryUsageBytes: 1000n,
      memoryWorkingSetBytes: 600n,
      memoryRssBytes: 300n,
      pageFaults: 5n,
      majorPageFaults: 1n,
      swapUsageBytes: 7n,
      memoryLimitBytes: 4000n,
      processCount: 2n,
      cpuPressure: { some: { totalUs: 77n, avg10: 1.5, avg60: 0.2, avg300: 0 } },
    });
    assert.equal(host.oomKills('/a'), 2);
    assert.deepEqual(host.pids('/a'), [4194305]);
    assert.throws(() => host.remove('/a'), { code: 'EBUSY' });
    await host.join('/a', 42);
    assert.equal(readFileSync(join(root, 'a', 'cgroup.procs'), 'utf8'), '42');
    rmSync(join(root, 'a', 'cgroup.procs'));
    writeFileSync(join(root, 'a', 'cgroup.kill'), '');
    const killing = host.killAll('/a', signal());
    assert.equal(readFileSync(join(root, 'a', 'cgroup.kill'), 'utf8'), '1');
    writeFileSync(join(root, 'a', 'b', 'cgroup.procs'), '');
    await killing;
    writeFileSync(join(root, 'a', 'b', 'cgroup.procs'), '4194305');
    const aborted = host.killAll('/a', AbortSignal.abort(new Error('enough')));
    await assert.rejects(aborted, /enough/);
  });
});
