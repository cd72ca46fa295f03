import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import {
  bindMount,
  listMounts,
  mountOf,
  mountOverlay,
  mountTmpfs,
  overlayOptions,
  parseMountinfo,
  setPropagation,
  unmount,
  unmountTree,
} from './mounts.ts';

describe('mounts', () => {
  let directory = '';
  const at = (...names: string[]) => {
    const path = join(directory, ...names);
    mkdirSync(path, { recursive: true });
    return path;
  };
  beforeEach(() => {
    // On tmpfs, where an overlay finds all that it wants of its upper layer.
    directory = join(mkdtempSync('/dev/shm/mounts-'), 'a dir: with, odd\\characters');
    mkdirSync(directory);
  });
  afterEach(() => {
    unmountTree(directory);
    rmSync(join(directory, '..'), { recursive: true });
  });

  function makeLayers(count: number): string[] {
    return Array.from({ length: count }, (_, index) => {
      const name = index === 3 ? 'layer: 3, odd\\' : `layer-${String(index).padStart(16, '0')}`;
      writeFileSync(join(at('layers', name), `of-${index}`), '');
      writeFileSync(join(at('layers', name), 'common'), String(index));
      return name;
    });
  }

  it('mounts 128 layers from a directory of odd characters, writable and read-only', () => {
    const layerNames = makeLayers(128);
    const [target, upper, work] = [at('target'), at('upper'), at('work')];
    const before = readdirSync('.');
    const mount = { target, layersDirectory: at('layers'), layerNames };
    mountOverlay({ ...mount, upper, work });
    assert.deepEqual(readdirSync('.'), before);
    assert.equal(readdirSync(target).length, 129);
    assert.equal(readFileSync(join(target, 'common'), 'utf8'), '0');
    writeFileSync(join(target, 'new'), '');
    assert.deepEqual(readdirSync(upper), ['new']);
    assert.equal(mountOf(join(target, 'new'))?.filesystem, 'overlay');
    unmount(target);
    unmount(target);
    mountOverlay(mount);
    assert.equal(readdirSync(target).length, 129);
    assert.throws(() => writeFileSync(join(target, 'new'), ''), { code: 'EROFS' });
  });

  it('keeps whole changes in the upper directory, whatever the kernel does by default', () => {
    const parameters = at('parameters');
    const mount = { target: at('t'), layersDirectory: at('layers'), layerNames: ['a', 'b'] };
    const upper = { upper: '/u', work: '/w' };
    const plain = 'lowerdir=a:b,upperdir=/u,workdir=/w';
    assert.equal(overlayOptions({ ...mount, ...upper }, parameters), plain);
    writeFileSync(join(parameters, 'redirect_dir'), 'Y\n');
    writeFileSync(join(parameters, 'metacopy'), 'N\n');
    assert.equal(overlayOptions({ ...mount, ...upper }, parameters), `${plain},redirect_dir=off`);
    writeFileSync(join(parameters, 'metacopy'), 'Y\n');
    const both = `${plain},redirect_dir=off,metacopy=off`;
    assert.equal(overlayOptions({ ...mount, ...upper }, parameters), both);
    assert.equal(overlayOptions(mount, parameters), 'lowerdir=a:b');
  });

  it('binds a single layer read-only, and refuses none, too many and too long ones', () => {
    const layerNames = makeLayers(4).slice(3);
    const [target, layersDirectory] = [at('target'), at('layers')];
    mountOverlay({ target, layersDirectory, layerNames });
    assert.deepEqual(readdirSync(target).sort(), ['common', 'of-3']);
    assert.throws(() => writeFileSync(join(target, 'new'), ''), { code: 'EROFS' });
    unmount(target);
    const refusals = [
      [[], 'EINVAL'],
      [Array(129).fill('x'), 'EINVAL'],
      [Array(60).fill('x'.repeat(80)), 'ENAMETOOLONG'],
      [['absent', 'too'], 'ENOENT'],
      [[...layerNames, ...layerNames], 'ELOOP'],
    ] as const;
    for (const [names, code] of refusals) {
      const mount = () => mountOverlay({ target, layersDirectory, layerNames: names });
      assert.throws(mount, { code });
    }
    assert.throws(
      () => mountOverlay({ target, layersDirectory: '/absent', layerNames: ['a', 'b'] }),
      {
        code: 'ENOENT',
        syscall: 'chdir',
      },
    );
    assert.notEqual(mountOf(target)?.mountPoint, target);
  });

  it('keeps what a read-only bind inherits, and its propagation', () => {
    const [source, target] = [at('source'), at('target')];
    mountTmpfs(source, 'size=1m,mode=0711');
    mkdirSync(join(source, 'within'));
    mountTmpfs(join(source, 'within'), 'size=1m');
    bindMount(source, target, { recursive: true, readonly: true, propagation: 'shared' });
    const mount = mountOf(target);
    assert.equal(mount?.propagation, 'shared');
    assert.deepEqual(mount?.options.split(',').slice(0, 4), ['ro', 'nosuid', 'nodev', 'noexec']);
    assert.equal(mountOf(join(target, 'within'))?.propagation, 'shared');
    setPropagation(target, 'slave', true);
    setPropagation(target, 'private', true);
    assert.equal(mountOf(join(target, 'within'))?.propagation, 'private');
    assert.throws(() => bindMount('/absent', target), { code: 'ENOENT', syscall: 'mount' });
  });

  it('unmounts what is stacked, nested or hidden, but follows no symlink', () => {
    const target = at('target');
    mountTmpfs(target, 'size=1m');
    mkdirSync(join(target, 'within'));
    mountTmpfs(join(target, 'within'), 'size=1m');
    mountTmpfs(target, 'size=1m');
    mountTmpfs(at('beside'), 'size=1m');
    symlinkSync(join(directory, 'beside'), join(directory, 'link'));
    unmount(join(directory, 'link'));
    assert.equal(mountOf(join(directory, 'beside'))?.mountPoint, join(directory, 'beside'));
    assert.ok(unmountTree(target) >= 2);
    assert.equal(unmountTree(target), 0);
    assert.equal(unmountTree(join(directory, 'absent')), 0);
    unmount(join(directory, 'absent'));
    assert.equal(unmountTree(directory), 1);
    assert.ok(!listMounts().some((mount) => mount.mountPoint.startsWith(directory)));
    assert.ok(existsSync(target));
  });

  it('reads the table as proc(5) has it', () => {
    const lines = [
      '36 35 98:0 /mnt1 /mnt\\0402\\134x rw,noatime master:1 - ext3 /dev/root rw,errors=continue',
      '37 35 0:5 / /caf\u00c3\u00a9 ro shared:3 master:1 - tmpfs none rw',
      '38 35 0:5 / /u rw unbindable - tmpfs none rw,size=1k',
      '39 35 0:5 net:[4026532] /run/n rw - nsfs nsfs rw',
    ];
    const entries = parseMountinfo(`${lines.join('\n')}\n`);
    assert.deepEqual(entries[0], {
      id: 36,
      root: '/mnt1',
      mountPoint: '/mnt 2\\x',
      options: 'rw,noatime',
      propagation: 'slave',
      filesystem: 'ext3',
      source: '/dev/root',
      superOptions: 'rw,errors=continue',
    });
    assert.deepEqual(entries.map((entry) => [entry.mountPoint, entry.propagation]).slice(1), [
      ['/café', 'shared'],
      ['/u', 'unbindable'],
      ['/run/n', 'private'],
    ]);
    assert.equal(mountOf('/absent'), undefined);
    assert.equal(mountOf('/proc/self')?.filesystem, 'proc');
  });
});
