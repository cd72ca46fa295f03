import assert from 'node:assert/strict';
import {
  Container,
  ImageSpec,
  ListContainersResponse,
  NamespaceMode,
  Signal,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  ContainerRecord,
  ImageRecord,
  ObjectReport,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { toContainer, toContainerStatus } from './cri-container.ts';
import { toImage } from './cri-image.ts';
import { toPodSandbox, toPodSandboxStatus } from './cri-sandbox.ts';
import { encodeFragment, joinFragments } from './fragments.ts';
import { createNodeView } from './node-view.ts';

// As a kubelet 1.36 names and labels its containers.
const LABELS = {
  'io.kubernetes.container.name': 'c',
  'io.kubernetes.pod.name': 'rsz',
  'io.kubernetes.pod.namespace': 'acc-913c09',
  'io.kubernetes.pod.uid': '4af12727-7edb-4542-95e6-98c2b712b353',
};
const ANNOTATIONS = {
  'io.kubernetes.container.hash': 'ea07d786',
  'io.kubernetes.container.restartCount': '0',
  'io.kubernetes.container.terminationMessagePath': '/dev/termination-log',
};
const IMAGE_ID = `sha256:${'3'.repeat(64)}`;
const IMAGE_DIGEST = `127.0.0.1:5017/test/busybox@sha256:${'b'.repeat(64)}`;

function container(more: object = {}): ContainerRecord {
  return ContainerRecord.fromPartial({
    id: 'c1',
    sandboxId: 's1',
    handler: 'runc',
    config: {
      metadata: { name: 'c', attempt: 2 },
      image: { image: IMAGE_ID, userSpecifiedImage: '127.0.0.1:5017/test/busybox:1' },
      labels: LABELS,
      annotations: ANNOTATIONS,
    },
    phase: ContainerPhase.RUNNING,
    createdAtNs: 1795457351576648350n,
    startedAtNs: 1795457351966343844n,
    imageId: IMAGE_ID,
    imageRef: IMAGE_DIGEST,
    logPath: '/var/log/pods/acc-913c09_rsz_4af12727/c/0.log',
    mounts: [{ containerPath: '/c', hostPath: '/h', recursiveReadOnly: true, readonly: true }],
    user: { linux: { uid: 0n, gid: 0n, supplementalGroups: [0n] } },
    resources: { cpuShares: 102n, memoryLimitInBytes: 67108864n },
    stopSignal: 'TERM',
    ...more,
  });
}

function sandbox(more: object = {}): SandboxRecord {
  return SandboxRecord.fromPartial({
    id: 's1',
    handler: 'runc',
    config: {
      metadata: { name: 'rsz', uid: 'u', namespace: 'acc', attempt: 1 },
      labels: LABELS,
      annotations: ANNOTATIONS,
      linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } },
    },
    phase: SandboxPhase.READY,
    createdAtNs: 7n,
    network: { ips: ['10.1.0.2', 'fd00::2'] },
    ...more,
  });
}

function report(object: NonNullable<ObjectReport['object']>, version: [number, number]) {
  return ObjectReport.fromPartial({
    owner: 'runtime.runc',
    id: object.value.id,
    version: { epoch: BigInt(version[0]), revision: BigInt(version[1]) },
    object,
  });
}

function deletion(id: string, version: [number, number]): ObjectReport {
  const [epoch, revision] = version;
  const head = { epoch: BigInt(epoch), revision: BigInt(revision) };
  return ObjectReport.fromPartial({ owner: 'runtime.runc', id, deleted: true, version: head });
}

describe('the view of the node', () => {
  const of = (phase: ContainerPhase) => ({
    $case: 'container' as const,
    value: container({ phase }),
  });

  it('applies only greater versions, deletions included', () => {
    const view = createNodeView(systemClock);
    const phase = () => view.container('c1')?.phase;
    assert.equal(view.apply(report(of(ContainerPhase.RUNNING), [1, 5])), true);
    assert.equal(view.apply(report(of(ContainerPhase.CREATED), [1, 4])), false);
    assert.equal(view.apply(report(of(ContainerPhase.CREATED), [1, 5])), false);
    assert.equal(phase(), ContainerPhase.RUNNING);
    assert.equal(view.apply(report(of(ContainerPhase.EXITED), [2, 1])), true);
    assert.equal(view.apply(report(of(ContainerPhase.RUNNING), [1, 99])), false);
    assert.equal(phase(), ContainerPhase.EXITED);
    assert.equal(view.apply(deletion('c1', [2, 1])), false);
    assert.equal(view.apply(deletion('c1', [2, 2])), true);
    assert.equal(view.apply(report(of(ContainerPhase.EXITED), [2, 2])), false);
    assert.equal(phase(), undefined);
    assert.equal(view.apply(report(of(ContainerPhase.CREATED), [3, 1])), true);
  });

  it('hides a sandbox’s own process and what is still being made', () => {
    const view = createNodeView(systemClock);
    const hidden = container({ id: 'sentry', sandboxProcess: true });
    view.apply(report({ $case: 'container', value: hidden }, [1, 1]));
    const creating = container({ id: 'creating', phase: ContainerPhase.CREATING });
    view.apply(report({ $case: 'container', value: creating }, [1, 1]));
    view.apply(report({ $case: 'container', value: container() }, [1, 1]));
    const young = sandbox({ phase: SandboxPhase.CREATING });
    view.apply(report({ $case: 'sandbox', value: young }, [1, 1]));
    assert.deepEqual(
      view.containers().map((item) => item.record.id),
      ['c1'],
    );
    assert.deepEqual(view.sandboxes(), []);
  });

  it('finds by a unique beginning of an id', () => {
    const view = createNodeView(systemClock);
    for (const id of ['abc1', 'abd2']) {
      view.apply(report({ $case: 'container', value: container({ id }) }, [1, 1]));
    }
    assert.equal(view.findContainer('abc').record?.id, 'abc1');
    assert.deepEqual(view.findContainer('ab'), { ambiguous: true });
    assert.deepEqual(view.findContainer('x'), { ambiguous: false });
    assert.deepEqual(view.findContainer(''), { ambiguous: false });
  });

  it('moves a sandbox’s timestamp on with each change of it or its containers', () => {
    const view = createNodeView(systemClock);
    const stamps: bigint[] = [];
    view.apply(report({ $case: 'sandbox', value: sandbox() }, [1, 1]));
    stamps.push(view.sandboxTouchedAtNs('s1'));
    view.apply(report(of(ContainerPhase.CREATED), [1, 1]));
    stamps.push(view.sandboxTouchedAtNs('s1'));
    view.apply(report(of(ContainerPhase.CREATED), [1, 1]));
    assert.equal(view.sandboxTouchedAtNs('s1'), stamps[1], 'old news moves nothing');
    view.apply(deletion('c1', [1, 2]));
    stamps.push(view.sandboxTouchedAtNs('s1'));
    assert.deepEqual(view.containersOf('s1'), []);
    assert.ok((stamps[0] ?? 0n) < (stamps[1] ?? 0n) && (stamps[1] ?? 0n) < (stamps[2] ?? 0n));
  });
});

describe('list fragments', () => {
  it('are byte for byte what the encoder writes, at every length of a length', () => {
    const sizes = [0, 1, 60, 127, 128, 129, 300, 16_000, 16_383, 16_384, 70_000];
    const containers = sizes.map((size, index) =>
      toContainer(container({ id: `c${index}`, imageRef: 'x'.repeat(size) })),
    );
    for (let count = 0; count <= containers.length; count += 1) {
      const some = containers.slice(0, count);
      const plain = ListContainersResponse.encode({ containers: some }).finish();
      const joined = joinFragments(
        some.map((item) => encodeFragment(Container.encode(item).finish())),
      );
      assert.ok(joined.equals(plain), `${count} containers`);
    }
    assert.equal(encodeFragment(Buffer.alloc(0)).toString('hex'), '0a00');
  });
});

describe('records as CRI shows them', () => {
  it('a running container', () => {
    const status = toContainerStatus(container(), undefined);
    assert.deepEqual(status.labels, LABELS);
    assert.deepEqual(status.annotations, ANNOTATIONS);
    assert.deepEqual(status.metadata, { name: 'c', attempt: 2 });
    assert.equal(status.image?.image, '127.0.0.1:5017/test/busybox:1');
    assert.equal(status.image?.userSpecifiedImage, '127.0.0.1:5017/test/busybox:1');
    assert.equal(status.imageId, IMAGE_ID);
    assert.equal(status.imageRef, IMAGE_DIGEST);
    assert.equal(status.startedAt, 1795457351966343844n);
    assert.equal(status.finishedAt, 0n);
    assert.equal(status.logPath, '/var/log/pods/acc-913c09_rsz_4af12727/c/0.log');
    assert.equal(status.mounts[0]?.recursiveReadOnly, true);
    assert.deepEqual(status.user?.linux?.supplementalGroups, [0n]);
    assert.equal(status.resources?.linux?.memoryLimitInBytes, 67108864n);
    assert.equal(status.stopSignal, Signal.SIGTERM);
  });

  it('an exited container says why', () => {
    const exited = { phase: ContainerPhase.EXITED, finishedAtNs: 9n };
    const reason = (more: object) =>
      toContainerStatus(container({ ...exited, ...more }), undefined).reason;
    assert.equal(reason({}), 'Completed');
    assert.equal(reason({ exitCode: 1 }), 'Error');
    assert.equal(reason({ exitCode: 137, reason: 'OOMKilled' }), 'OOMKilled');
  });

  it('an image that was named by id gets the name that people know', () => {
    const record = container({ config: { image: { image: IMAGE_ID } } });
    const image = ImageRecord.fromPartial({ id: IMAGE_ID, repoTags: ['docker.io/library/box:1'] });
    const named = toContainerStatus(record, image);
    assert.equal(named.image?.image, 'docker.io/library/box:1');
    assert.equal(toContainerStatus(record, undefined).image?.image, IMAGE_ID);
  });

  it('a stop signal that the CRI counts from the other end', () => {
    const { stopSignal } = toContainerStatus(container({ stopSignal: 'RTMIN+20' }), undefined);
    assert.equal(stopSignal, Signal.SIGRTMAXMINUS10);
  });

  it('a sandbox, with its own network, the host’s, and none any more', () => {
    const status = toPodSandboxStatus(sandbox());
    assert.deepEqual(status.network, { ip: '10.1.0.2', additionalIps: [{ ip: 'fd00::2' }] });
    assert.equal(status.linux?.namespaces?.options?.pid, NamespaceMode.CONTAINER);
    assert.equal(status.runtimeHandler, '');
    assert.deepEqual(status.labels, LABELS);
    const host = { namespaceOptions: { network: NamespaceMode.NODE } };
    const ofHost = sandbox({ config: { linux: { securityContext: host } }, network: undefined });
    assert.deepEqual(toPodSandboxStatus(ofHost).network, { ip: '', additionalIps: [] });
    const options = toPodSandboxStatus(ofHost).linux?.namespaces?.options;
    assert.equal(options?.network, NamespaceMode.NODE);
    assert.equal(toPodSandboxStatus(sandbox({ network: undefined })).network, undefined);
    const stopped = sandbox({ phase: SandboxPhase.STOPPING, requestedHandler: 'gvisor' });
    assert.equal(toPodSandbox(stopped).state, 1);
    assert.equal(toPodSandbox(stopped).runtimeHandler, 'gvisor');
  });

  it('an image’s specification by its id, with the annotations of its manifest', () => {
    const annotations = { 'org.opencontainers.image.version': '1.36' };
    const { spec } = toImage(ImageRecord.fromPartial({ id: IMAGE_ID, annotations }));
    assert.deepEqual(spec, ImageSpec.fromPartial({ image: IMAGE_ID, annotations }));
  });

  it('an image’s user, by number or by name', () => {
    const withUser = (User: string) =>
      toImage(
        ImageRecord.fromPartial({
          id: IMAGE_ID,
          configJson: Buffer.from(JSON.stringify({ config: { User } })),
        }),
      );
    assert.equal(withUser('1002:5').uid?.value, 1002n);
    assert.equal(withUser('1002:5').username, '');
    assert.equal(withUser('www-data:www').username, 'www-data');
    assert.equal(withUser('www-data').uid, undefined);
    assert.equal(withUser('').uid, undefined);
    assert.ok(toImage(ImageRecord.fromPartial({ id: IMAGE_ID })).size > 0n);
  });
});

describe('names of images', () => {
  it('find the image as its owner finds it: by id, beginning of an id, tag, digest or short name', () => {
    const digest = `docker.io/library/box@sha256:${'b'.repeat(64)}`;
    const record = ImageRecord.fromPartial({
      id: IMAGE_ID,
      repoTags: ['docker.io/library/box:latest'],
      repoDigests: [digest],
    });
    const view = createNodeView(systemClock);
    view.apply(report({ $case: 'image', value: record }, [1, 1]));
    const known = [IMAGE_ID, IMAGE_ID.slice(7), IMAGE_ID.slice(7, 11), 'box', 'box:latest', digest];
    for (const name of known) assert.equal(view.findImage(name)?.id, IMAGE_ID, name);
    for (const name of ['box:2', '333', `sha256:${'c'.repeat(64)}`]) {
      assert.equal(view.findImage(name), undefined, name);
    }
    assert.throws(() => view.findImage('No such name'), { kind: 'invalid_argument' });
  });
});
