// Checkpoint and restore with the real runc and conmon. criu does not work with every kernel, so here
// its part is played: a program of its name, and an engine that writes criu's images as they were
// recorded and starts the container anew where criu would restore it. Archives are written and read for
// real, also by tar(1).

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VerbContext } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerConfig, ImageSpec } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ContainerPhase, ImageRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { WRITABLE_LAYER } from '@cribus/contracts/paths.ts';
import type { VerbName } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { placesOf } from '@cribus/runtime-worker/worker.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

const CRIU = `#!/bin/sh
here=$(dirname "$0")
case $1 in
  --version) echo "Version: 4.1" ;;
  check) [ ! -e "$here/broken" ] || { echo "Error (criu/x.c:1): the kernel lacks it" >&2; exit 1; } ;;
esac
`;
/** criu's images begin with a magic number (criu/include/magic.h); what follows is criu's business. */
const ENGINE = `#!/bin/sh
here=$(dirname "$0")
operation=
for word in "$@"; do case $word in checkpoint|restore) operation=$word ;; esac; last=$word; done
[ -n "$operation" ] || exec runc "$@"
front=
while [ "$1" != "$operation" ]; do front="$front '$1'"; shift; done
while [ $# -gt 0 ]; do
  case $1 in
    --image-path) image=$2 ;;
    --work-path) work=$2 ;;
    --bundle) bundle=$2 ;;
    --pid-file) pidfile=$2 ;;
  esac
  shift
done
case $operation in
  checkpoint)
    [ ! -e "$here/slow" ] || { touch "$here/dumping"; sleep 3; }
    [ ! -e "$here/fails" ] || { echo "Error (criu/y.c:2): a socket" >"$work/dump.log"; exit 1; }
    eval "runc $front state '$last'" | grep -q '"status": "paused"' || exit 9
    printf '\\131\\106\\032\\124' >"$image/inventory.img"; printf page >"$image/pages-1.img"
    echo dumped >"$work/dump.log"; echo stats >"$work/stats-dump" ;;
  restore)
    [ ! -e "$here/fails" ] || { echo "Error (criu/z.c:3): no mount" >"$work/restore.log"; exit 1; }
    [ -s "$image/pages-1.img" ] || exit 8
    eval "runc $front create --bundle '$bundle' --pid-file '$pidfile' '$last'" &&
      eval "runc $front start '$last'" ;;
esac
`;

describe('checkpoints of containers under runc', () => {
  let base: string;
  let fixture: WorkerFixture;
  const path = process.env['PATH'];
  const record = (id: string) => fixture.worker.store.get(id);
  const start = (containerId: string) =>
    fixture.verbs['start-container']({ containerId }, fixture.context());
  const remove = (containerId: string) =>
    fixture.verbs['remove-container']({ containerId }, fixture.context());
  const checkpoint = (containerId: string, location: string, timeoutS = 0n) =>
    fixture.verbs['checkpoint-container']({ containerId, location, timeoutS }, fixture.context());
  const restore = (name: string, archive: string) =>
    fixture.create(name, {
      image: ImageSpec.fromPartial({ image: archive }),
    });
  const flag = (name: string) => writeFileSync(join(base, name), '');
  const stateOf = async (id: string) =>
    (await fixture.worker.engine.state(id, systemClock.timeout(5_000)))?.status;

  before(async () => {
    base = await mkdtemp(join(tmpdir(), 'cribus-criu-'));
    writeFileSync(join(base, 'criu'), CRIU, { mode: 0o755 });
    writeFileSync(join(base, 'engine'), ENGINE, { mode: 0o755 });
    process.env['PATH'] = `${base}:${path}`;
    const engine = join(base, 'engine');
    fixture = await openWorkerFixture({
      handler: 'runc',
      family: 'runc',
      engine,
      probe: probeRunc,
    });
  });
  afterEach(async () => {
    for (const name of ['slow', 'fails', 'dumping', 'broken']) {
      await rm(join(base, name), { force: true });
    }
  });
  after(async () => {
    await fixture.close();
    process.env['PATH'] = path;
    await rm(base, { recursive: true });
  });

  /** One that changed, added and deleted files, and runs. */
  async function changedContainer(name: string): Promise<string> {
    const script =
      'echo changed >>/etc/passwd; mkdir -p /new/dir; echo hi >/new/dir/file; rm /bin/yes; sleep 1000';
    const id = await fixture.create(name, { command: ['sh', '-c', script] });
    await start(id);
    const upper = join(fixture.worker.paths.containers, id, WRITABLE_LAYER);
    while (!existsSync(join(upper, 'bin/yes')) && !readdirSync(upper).includes('bin')) {
      await systemClock.sleep(20);
    }
    await systemClock.sleep(100);
    return id;
  }

  it('are archives with everything that other tools look for, and the container runs on', async () => {
    const id = await changedContainer('whole');
    const location = join(base, 'whole.tar');
    await checkpoint(id, location);
    assert.equal(statSync(location).mode & 0o777, 0o600);
    const names = execFileSync('tar', ['-tf', location], { encoding: 'utf8' }).trim().split('\n');
    assert.deepEqual([...names].sort(), [
      'bind.mounts',
      'checkpoint/',
      'checkpoint/inventory.img',
      'checkpoint/pages-1.img',
      'config.dump',
      'container.log',
      'deleted.files',
      'dump.log',
      'rootfs-diff.tar',
      'spec.dump',
      'stats-dump',
      'status',
      'status.dump',
    ]);
    const text = (name: string) => execFileSync('tar', ['-xOf', location, name]);
    const config = JSON.parse(text('config.dump').toString()) as Record<string, unknown>;
    assert.deepEqual(
      [config['id'], config['name'], config['rootfsImageRef'], config['runtime']],
      [id, 'whole', 'busybox@sha256:2', 'runc'],
    );
    const spec = JSON.parse(text('spec.dump').toString()) as {
      annotations: Record<string, string>;
    };
    assert.equal(spec.annotations['io.kubernetes.cri.container-name'], 'whole');
    assert.deepEqual(JSON.parse(text('deleted.files').toString()), ['/bin/yes']);
    const diff = execFileSync('tar', ['-t'], { input: text('rootfs-diff.tar'), encoding: 'utf8' });
    assert.deepEqual(diff.trim().split('\n'), [
      'bin/',
      'etc/',
      'etc/passwd',
      'new/',
      'new/dir/',
      'new/dir/file',
    ]);
    assert.equal(await stateOf(id), 'running');
    assert.equal(existsSync(join(fixture.worker.paths.containers, id, 'checkpoint')), false);
    await remove(id);
  });

  it('become containers again, with their files, that run and end like any other', async () => {
    const first = await changedContainer('first');
    const location = join(base, 'again.tar');
    await checkpoint(first, location);
    await remove(first);
    // As a person may have kept it.
    execFileSync('gzip', [location]);
    const id = await restore('again', `${location}.gz`);
    assert.equal(record(id)?.phase, ContainerPhase.CREATED);
    assert.equal(await stateOf(id), undefined);
    assert.deepEqual(fixture.asked.findLast(({ verb }) => verb === 'take-lease')?.request, {
      leaseId: id,
      handler: 'runc',
      image: 'busybox@sha256:2',
      volumeImages: [],
    });
    await fixture.restart();
    await start(id);
    assert.equal(record(id)?.phase, ContainerPhase.RUNNING);
    const { bundle } = placesOf(fixture.worker, id);
    assert.equal(existsSync(join(bundle, 'criu.conf')), fixture.worker.cgroups.version === 'v2');
    const seen = await fixture.exec(id, [
      'sh',
      '-c',
      'tail -n1 /etc/passwd; cat /new/dir/file; ls /bin/yes',
    ]);
    assert.match(`${seen.stdout}${seen.stderr}`, /hi\n.*yes: No such file/s);
    await fixture.verbs['stop-container']({ containerId: id, timeoutS: 0n }, fixture.context());
    assert.deepEqual([record(id)?.phase, record(id)?.exitCode], [ContainerPhase.EXITED, 137]);
    await remove(id);
    assert.equal(existsSync(join(fixture.worker.paths.containers, id)), false);
  });

  it('on cgroup v2 are put by criu into the cgroup of their new container', async () => {
    const first = await changedContainer('moved');
    const location = join(base, 'moved.tar');
    await checkpoint(first, location);
    await remove(first);
    const id = await restore('moved-again', location);
    const cgroups = fixture.worker.cgroups as { version: 'v1' | 'v2' };
    const { version } = cgroups;
    cgroups.version = 'v2';
    await start(id).finally(() => {
      cgroups.version = version;
    });
    const { bundle } = placesOf(fixture.worker, id);
    const options = join(bundle, 'criu.conf');
    const spec = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'));
    assert.equal(spec.annotations['org.criu.config'], options);
    assert.match(readFileSync(options, 'utf8'), new RegExp(`^cgroup-root .*${id}$`, 'm'));
    await remove(id);
  });

  it('in an image become containers of the image below, leased in its place', async () => {
    const first = await changedContainer('pushed');
    const location = join(base, 'pushed.tar');
    await checkpoint(first, location);
    await remove(first);
    const layer = join(base, 'layers', 'checkpoint');
    mkdirSync(layer, { recursive: true });
    execFileSync('tar', ['-xf', location, '-C', layer]);
    const usual = fixture.context();
    const asked: string[] = [];
    const ask = (async (verb: VerbName, request: { image?: string }, options: never) => {
      const answer = await usual.ask(verb as 'take-lease', request as never, options);
      asked.push(`${verb} ${request.image ?? ''}`.trim());
      if (request.image !== 'registry/checkpoint:1') return answer;
      const annotations = { 'org.criu.checkpoint.container.name': 'pushed' };
      const image = ImageRecord.fromPartial({ id: 'sha256:9', checkpointAnnotations: annotations });
      return { ...answer, image, layersDir: join(base, 'layers'), layerNames: ['checkpoint'] };
    }) as unknown as VerbContext['ask'];
    const { containerId: id } = await fixture.verbs['create-container'](
      {
        podSandboxId: fixture.sandbox.id,
        config: ContainerConfig.fromPartial({
          metadata: { name: 'pushed-again', attempt: 0 },
          image: { image: 'registry/checkpoint:1' },
          linux: { securityContext: { namespaceOptions: { pid: 1 } } },
        }),
        sandboxConfig: fixture.sandbox.config,
      },
      fixture.context({ ask }),
    );
    assert.deepEqual(
      asked.filter((each) => each.includes('lease')),
      ['take-lease registry/checkpoint:1', 'end-lease', 'take-lease busybox@sha256:2'],
    );
    await start(id);
    const seen = await fixture.exec(id, ['cat', '/new/dir/file']);
    assert.equal(seen.stdout, 'hi\n');
    await remove(id);
  });

  it('have with them what a container has in the volumes that its image declares, and bring it back', async () => {
    const usual = fixture.context();
    const ask = (async (verb: VerbName, request: never, options: never) => {
      const answer = await usual.ask(verb as 'take-lease', request, options);
      if (verb !== 'take-lease') return answer;
      const image = JSON.parse(Buffer.from(answer.image?.configJson ?? '').toString());
      image.config.Volumes = { '/bin': {}, '/fresh': {} };
      const configJson = Buffer.from(JSON.stringify(image));
      return { ...answer, image: { ...answer.image, configJson } };
    }) as unknown as VerbContext['ask'];
    const make = async (name: string, image: string, script: string) => {
      const config = ContainerConfig.fromPartial({
        metadata: { name, attempt: 0 },
        image: { image },
        command: ['sh', '-c', script],
        linux: { securityContext: { namespaceOptions: { pid: 1 } } },
      });
      const { id: podSandboxId, config: sandboxConfig } = fixture.sandbox;
      const { containerId } = await fixture.verbs['create-container'](
        { podSandboxId, config, sandboxConfig },
        fixture.context({ ask }),
      );
      await start(containerId);
      return containerId;
    };
    const script = 'rm /bin/yes; mkdir /fresh/d; echo kept >/fresh/d/file; touch /done; sleep 1000';
    const first = await make('volumes', 'busybox', script);
    const upper = join(fixture.worker.paths.containers, first, WRITABLE_LAYER);
    while (!existsSync(join(upper, 'done'))) await systemClock.sleep(20);
    const location = join(base, 'volumes.tar');
    await checkpoint(first, location);
    await remove(first);
    const text = (name: string) => execFileSync('tar', ['-xOf', location, name]);
    const spec = JSON.parse(text('spec.dump').toString()) as {
      readonly mounts: readonly { readonly destination: string }[];
    };
    const mounted = spec.mounts.map(({ destination }) => destination);
    assert.ok(!mounted.includes('/bin') && mounted.includes('/proc'), `${mounted}`);
    assert.deepEqual(JSON.parse(text('deleted.files').toString()), ['/bin/yes']);
    const again = await make('volumes-again', location, 'sleep 1000');
    const seen = await fixture.exec(again, [
      ...[
        'sh',
        '-c',
        'cat /fresh/d/file; ls /bin/yes; echo more >/fresh/d/file; cat /fresh/d/file',
      ],
    ]);
    assert.match(`${seen.stdout}${seen.stderr}`, /^kept\nmore\n.*yes: No such file/s);
    await remove(again);
    assert.equal(existsSync(join(fixture.worker.paths.containers, again)), false);
  });

  it('that fail leave nothing, say why, and let the container run on', async () => {
    const id = await changedContainer('fails');
    const location = join(base, 'fails.tar');
    flag('fails');
    await assert.rejects(checkpoint(id, location), {
      kind: 'wrong_state',
      message: /criu: a socket/,
    });
    assert.equal(await stateOf(id), 'running');
    assert.deepEqual(
      readdirSync(base).filter((name) => name.includes('fails.tar')),
      [],
    );
    await rm(join(base, 'fails'));
    flag('slow');
    await assert.rejects(checkpoint(id, location, 1n), { kind: 'timeout' });
    assert.equal(await stateOf(id), 'running');
    assert.deepEqual(
      readdirSync(base).filter((name) => name.includes('fails.tar')),
      [],
    );
    await assert.rejects(checkpoint(id, 'relative.tar'), { kind: 'invalid_argument' });
    await assert.rejects(checkpoint(id, join(base, 'no/such.tar')), { kind: 'invalid_argument' });
    await assert.rejects(checkpoint(id, join(base, 'engine')), { message: /exists already/ });
    await remove(id);
  });

  it('whose restore fails say why, and the container can still be stopped and removed', async () => {
    const first = await changedContainer('source');
    const location = join(base, 'source.tar');
    await checkpoint(first, location);
    await remove(first);
    const id = await restore('unlucky', location);
    flag('fails');
    await assert.rejects(start(id), { kind: 'wrong_state', message: /criu: no mount/ });
    assert.equal(record(id)?.phase, ContainerPhase.CREATED);
    await remove(id);
    assert.equal(existsSync(join(fixture.worker.paths.run, id)), false);
  });

  it('that were cut short by a killed worker are finished at its next start: the container runs', async () => {
    const id = await changedContainer('cut');
    const location = join(base, 'cut.tar');
    flag('slow');
    const cut = checkpoint(id, location).catch(() => undefined);
    while (!existsSync(join(base, 'dumping'))) await systemClock.sleep(20);
    assert.equal(await stateOf(id), 'paused');
    await fixture.restart();
    assert.equal(await stateOf(id), 'running');
    assert.equal(existsSync(join(fixture.worker.paths.containers, id, 'checkpoint')), false);
    // Nothing here kills the first worker, which still waits for its engine.
    await cut;
    await remove(id);
  });

  it('are refused where criu is content with nothing, with its words', async () => {
    flag('broken');
    const { features, details } = await probeRunc({
      handler: 'runc',
      config: fixture.worker.service.config.runtimes.handlers['runc'] ?? assert.fail(),
      cgroupDriver: 'cgroupfs',
      directory: base,
      runDirectory: base,
      engineRoot: join(base, 'engine-root'),
      clock: systemClock,
      log: fixture.worker.service.log,
      signal: systemClock.timeout(10_000),
    });
    assert.equal(features.checkpoint, false);
    assert.equal(
      details['checkpoint'],
      "criu 4.1 can't work with this kernel: the kernel lacks it",
    );
  });

  it('whose image is not here say which it is, by the name that it was given', async () => {
    const archive = join(base, 'elsewhere.tar');
    const dump = { id: '1', rootfsImageRef: 'r/box@sha256:2', rootfsImageName: 'r/box:latest' };
    const files = { 'spec.dump': '{"mounts":[]}', 'checkpoint/inventory.img': 'x' };
    writeFileSync(archive, tar({ ...files, 'config.dump': JSON.stringify(dump) }));
    const usual = fixture.context();
    const ask = (async (verb: VerbName, request: { readonly image?: string }, options: never) => {
      const { image } = request;
      if (verb === 'take-lease') throw new Failure('not_found', `image "${image}" is not here`);
      return await usual.ask(verb as 'get-sandbox', request as never, options);
    }) as unknown as VerbContext['ask'];
    const request = {
      podSandboxId: fixture.sandbox.id,
      config: ContainerConfig.fromPartial({
        metadata: { name: 'elsewhere', attempt: 0 },
        image: { image: archive },
      }),
      sandboxConfig: fixture.sandbox.config,
    };
    const tried = fixture.verbs['create-container'](request, fixture.context({ ask }));
    await assert.rejects(tried, {
      kind: 'not_found',
      message: `checkpoint ${archive}: its container was made of "r/box:latest": image "r/box@sha256:2" is not here`,
    });
    assert.deepEqual(readdirSync(fixture.worker.paths.containers), []);
  });

  it('that are no checkpoints are refused before anything is made', async () => {
    mkdirSync(join(base, 'wrong'), { recursive: true });
    const good = {
      'config.dump': '{"id":"1","name":"n","rootfsImageRef":"sha256:1"}',
      'spec.dump': '{"mounts":[]}',
      'checkpoint/inventory.img': 'x',
    };
    const cases: readonly (readonly [string, Buffer, RegExp])[] = [
      ['no.tar', Buffer.alloc(0), /has no config\.dump/],
      ['text.tar', Buffer.from('hello, this is text\n'.repeat(60)), /checksum/],
      ['cut.tar', tar(good).subarray(0, 1100), /ends within an entry/],
      ['climbs.tar', tar({ ...good, '../../etc/x': 'x' }), /leads out/],
      ['deep.tar', tar({ ...good, 'checkpoint/../../x': 'x' }), /leads out/],
      ['names.tar', tar({ ...good, 'checkpoint/a/b.img': 'x' }), /no name of an image of criu/],
      ['link.tar', tar({ ...good, 'rootfs-diff.tar': '' }, '2'), /is a symlink, not a file/],
      ['json.tar', tar({ ...good, 'config.dump': '{"id":' }), /config\.dump is no JSON/],
      ['list.tar', tar({ ...good, 'config.dump': '[]' }), /is no JSON object/],
      ['image.tar', tar({ ...good, 'config.dump': '{}' }), /names no image/],
      [
        'mounts.tar',
        tar({ ...good, 'spec.dump': '{"mounts":[{"destination":"/data","type":"bind"}]}' }),
        /mounts at \/data/,
      ],
      ['criu.tar', tar({ ...good, 'checkpoint/inventory.img': undefined }), /no images of criu/],
    ];
    for (const [name, data, message] of cases) {
      const file = join(base, 'wrong', name);
      writeFileSync(file, data);
      await assert.rejects(restore(name, file), { kind: 'invalid_argument', message });
    }
    await assert.rejects(restore('none', '/no/such/file'), { message: /no such file/ });
    await assert.rejects(restore('directory', base), { message: /no regular file/ });
    assert.deepEqual(readdirSync(fixture.worker.paths.containers), []);
  });

  it('whose changed files climb out by a name or a symlink change nothing outside', async () => {
    const outside = join(base, 'outside');
    mkdirSync(outside);
    const diff = tar({ 'way/in': 'x' }, '0', [['way', outside]]);
    const archive = join(base, 'climbing.tar');
    writeFileSync(
      archive,
      tar({
        'config.dump': '{"id":"1","name":"n","rootfsImageRef":"sha256:1"}',
        'spec.dump': '{"mounts":[]}',
        'checkpoint/inventory.img': 'x',
        'rootfs-diff.tar': diff,
        'deleted.files': '["/way/../../../../../../etc/hostname"]',
      }),
    );
    await assert.rejects(restore('climbing', archive), { kind: 'invalid_argument' });
    assert.deepEqual(readdirSync(outside), []);
    assert.deepEqual(readdirSync(fixture.worker.paths.containers), []);
  });
});

/** An archive of files, those without content left out; `type` is that of the last one. */
function tar(
  files: Readonly<Record<string, string | Buffer | undefined>>,
  type = '0',
  links: readonly (readonly [string, string])[] = [],
): Buffer {
  const entries = Object.entries(files).filter(([, content]) => content !== undefined);
  const blocks = [
    ...links.map(([name, target]) => member(name, { data: Buffer.alloc(0), type: '2', target })),
    ...entries.map(([name, content], index) =>
      member(name, {
        data: Buffer.from(content ?? ''),
        type: index === entries.length - 1 ? type : '0',
        target: index === entries.length - 1 && type === '2' ? '/etc/passwd' : '',
      }),
    ),
  ];
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

function member(
  name: string,
  entry: { readonly data: Buffer; readonly type: string; readonly target: string },
): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\x000000000\x000000000\x00', 100);
  header.write(`${entry.data.length.toString(8).padStart(11, '0')}\x0000000000000\x00`, 124);
  header.write(`        ${entry.type}${entry.target}`, 148);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((512 - (entry.data.length % 512)) % 512);
  return Buffer.concat([header, entry.data, padding]);
}
