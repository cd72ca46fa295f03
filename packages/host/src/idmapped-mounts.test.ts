import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
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
import { after, before, describe, it } from 'mocha';
import { idmapMount, mountIdmappedOverlay } from './idmapped-mounts.ts';
import { bindMount, mountOf, mountTmpfs, setPropagation, unmount, unmountTree } from './mounts.ts';
import { removeNamespacePin } from './namespaces.ts';
import { run } from './spawn.ts';
import { createUserNamespace } from './user-namespaces.ts';

/** As the kubelet hands them out: beyond the signed 32 bits. */
const HOST_ID = 4_145_283_072;
const MAPPING = { containerId: 0, hostId: HOST_ID, length: 65_536 };

describe('idmapped mounts', () => {
  let directory = '';
  let userNamespace = '';
  const at = (...names: string[]) => join(directory, ...names);
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'idmapped-'));
    userNamespace = at('pins', 'user');
    await createUserNamespace({
      pins: { user: userNamespace },
      mappings: { uids: [MAPPING], gids: [MAPPING] },
      signal: AbortSignal.timeout(5000),
    });
  });
  after(() => {
    removeNamespacePin(userNamespace);
    unmountTree(directory);
    rmSync(directory, { recursive: true });
  });

  /** Runs a script as root of the user namespace. */
  const asMappedRoot = async (script: string) => {
    const args = [`--user=${userNamespace}`, '--setuid=0', '--setgid=0', 'sh', '-c', script];
    const result = await run({ command: 'nsenter', args, signal: AbortSignal.timeout(5000) });
    return `${result.stdout}${result.stderr}`.trim();
  };

  it("shows a directory's files as the namespace's root's, whose writes are the host root's", async () => {
    mkdirSync(at('volume', 'below'), { recursive: true });
    writeFileSync(at('volume', 'file'), 'text');
    mkdirSync(at('target'));
    idmapMount(at('volume'), at('target'), { userNamespace });
    assert.equal(statSync(at('target', 'file')).uid, HOST_ID);
    assert.equal(statSync(at('target', 'file')).gid, HOST_ID);
    chmodSync(directory, 0o755);
    assert.equal(await asMappedRoot(`echo new > ${at('target', 'made')}; id -u`), '0');
    assert.equal(statSync(at('volume', 'made')).uid, 0);
    unmount(at('target'));
    assert.equal(mountOf(at('target'))?.mountPoint === at('target'), false);
  });

  it('maps a single file', () => {
    writeFileSync(at('one'), 'text');
    writeFileSync(at('place'), '');
    idmapMount(at('one'), at('place'), { userNamespace });
    assert.equal(readFileSync(at('place'), 'utf8'), 'text');
    assert.equal(statSync(at('place')).uid, HOST_ID);
    unmount(at('place'));
  });

  it('takes what is mounted below along, and receives later mounts as a slave', () => {
    mkdirSync(at('tree', 'below'), { recursive: true });
    mkdirSync(at('tree', 'later'));
    mountTmpfs(at('tree'), 'mode=755');
    setPropagation(at('tree'), 'shared', false);
    mkdirSync(at('tree', 'below'));
    mkdirSync(at('tree', 'later'));
    mountTmpfs(at('tree', 'below'), 'mode=755');
    mkdirSync(at('copy'));
    const options = { userNamespace, recursive: true, propagation: 'slave' } as const;
    idmapMount(at('tree'), at('copy'), options);
    assert.equal(statSync(at('copy', 'below')).uid, HOST_ID);
    mountTmpfs(at('tree', 'later'), 'mode=711');
    assert.equal(statSync(at('copy', 'later')).mode & 0o777, 0o711);
    unmountTree(at('copy'));
    assert.equal(statSync(at('tree', 'later')).mode & 0o777, 0o711, 'the host keeps its mounts');
    unmountTree(at('tree'));
  });

  it('says which file system can not be mapped, and leaves such a mount below as it is', () => {
    mkdirSync(at('sys'));
    assert.throws(() => idmapMount('/proc', at('sys'), { userNamespace }), {
      code: 'EINVAL',
      message: /mount_setattr '\/proc' with mapped owners \(proc\)/,
    });
    assert.notEqual(mountOf(at('sys'))?.mountPoint, at('sys'));
    mkdirSync(at('mixed'));
    mountTmpfs(at('mixed'), 'mode=755');
    mkdirSync(at('mixed', 'proc'));
    bindMount('/proc', at('mixed', 'proc'));
    mkdirSync(at('mapped'));
    idmapMount(at('mixed'), at('mapped'), { userNamespace, recursive: true });
    assert.equal(statSync(at('mapped')).uid, HOST_ID);
    assert.equal(statSync(at('mapped', 'proc', 'version')).uid, 0);
    unmountTree(at('mapped'));
    unmountTree(at('mixed'));
  });

  it('mounts an overlay of mapped layers, and nothing beside it', async () => {
    for (const name of ['a', 'b']) {
      mkdirSync(at('layers', name, 'etc'), { recursive: true });
      writeFileSync(at('layers', name, 'etc', name), name);
    }
    for (const name of ['upper', 'work', 'root']) mkdirSync(at(name));
    for (const name of ['upper', 'work']) chownSync(at(name), HOST_ID, HOST_ID);
    const mount = { target: at('root'), layersDirectory: at('layers'), layerNames: ['a', 'b'] };
    mountIdmappedOverlay({ ...mount, upper: at('upper'), work: at('work') }, { userNamespace });
    assert.equal(existsSync(at('root.layers')), false);
    assert.equal(
      await asMappedRoot(`cd ${at('root')}; echo 1 >> etc/a; stat -c %u etc/a etc/b .`),
      '0\n0\n0',
    );
    assert.equal(readFileSync(at('upper', 'etc', 'a'), 'utf8'), 'a1\n');
    assert.equal(statSync(at('upper', 'etc', 'a')).uid, HOST_ID);
    assert.equal(readFileSync(at('layers', 'a', 'etc', 'a'), 'utf8'), 'a');
    unmount(at('root'));
    mountIdmappedOverlay({ ...mount, layerNames: ['a'] }, { userNamespace });
    assert.equal(statSync(at('root', 'etc', 'a')).uid, HOST_ID, 'a single layer is bound');
    unmount(at('root'));
    assert.equal(unmountTree(directory), 1, 'the pin');
  });
});
