// One stack and one played kubelet for the tests of a describe block. After each test the kubelet
// deletes its pods and collects what is left of them, and must have found no fault meanwhile.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { after, afterEach, before } from 'mocha';
import type { Cri } from '../harness/cri.ts';
import type { StackOptions } from '../harness/stack.ts';
import { type Suite, stackSuite } from '../harness/suite.ts';
import { KubeletClient } from './client-checks.ts';
import { mapContainers, type NodePaths, type PodManifest, podManifest } from './manifest.ts';
import { PlayedKubelet } from './played-kubelet.ts';

/** The handlers under which Kubernetes' features are shown. */
export const KUBELET_HANDLERS = ['runc', 'gvisor'] as const;

export interface KubeletSuite {
  readonly suite: Suite;
  readonly kubelet: PlayedKubelet;
  readonly cri: Cri;
  readonly paths: NodePaths;
  /** Adds a pod to those that should run. */
  add(given: Parameters<typeof podManifest>[0]): PodManifest;
  /**
   * The same pod for each handler, so that they live side by side. All the containers of one share
   * a directory of the host, which outlives the pod, at /v; `describe` is told its path.
   */
  addToEach(describe: (volume: string) => ManifestOfEach): readonly SharingPod[];
  /** Runs after the pods of the test are gone. */
  undo(action: () => void): void;
}

export type ManifestOfEach = Omit<Parameters<typeof podManifest>[0], 'handler'>;

export interface SharingPod {
  readonly handler: (typeof KUBELET_HANDLERS)[number];
  readonly pod: PodManifest;
  /** On the host. */
  readonly volume: string;
}

/** To be called inside a describe; what it answers can be read once its tests run. */
export function kubeletSuite(options: StackOptions = {}): KubeletSuite {
  const cgroup = `/cribus-played-kubelet-${process.pid}`;
  // Made when the tests run, for a suite none of whose tests are asked for leaves nothing behind.
  const directory = join(tmpdir(), `cribus-played-kubelet-${randomUUID()}`);
  const paths: NodePaths = {
    pods: join(directory, 'pods'),
    podLogs: join(directory, 'log', 'pods'),
    containerLogs: join(directory, 'log', 'containers'),
    cgroup,
  };
  const undos: (() => void)[] = [];
  let kubelet: PlayedKubelet | undefined;
  // Before those of the stack, which look whether anything is left.
  afterEach(async () => {
    try {
      await kubelet?.terminateAll();
    } finally {
      for (const undo of undos.splice(0).toReversed()) undo();
    }
    assert.deepEqual(kubelet?.faults.splice(0) ?? [], []);
  });
  after(async () => {
    await kubelet?.stopRelisting();
    detectCgroups().remove(cgroup);
    rmSync(directory, { recursive: true, force: true });
  });
  const suite = stackSuite(options);
  before(() => {
    mkdirSync(paths.podLogs, { recursive: true });
    chmodSync(directory, 0o755);
    mkdirSync(paths.pods);
    detectCgroups().create(`${cgroup}/besteffort`);
    kubelet = new PlayedKubelet(new KubeletClient(suite.cri), paths);
    kubelet.relistEverySecond();
  });
  const get = (): PlayedKubelet => {
    assert.ok(kubelet !== undefined, `there is no kubelet in ${readdirSync(directory)}`);
    return kubelet;
  };
  return {
    suite,
    paths,
    get kubelet() {
      return get();
    },
    get cri() {
      return suite.cri;
    },
    add: (given) => {
      const pod = podManifest(given);
      get().add(pod);
      return pod;
    },
    addToEach: (describe) =>
      KUBELET_HANDLERS.map((handler) => {
        const volume = mkdtempSync(join(directory, 'shared-'));
        chmodSync(volume, 0o777);
        const given = describe(volume);
        const pod = podManifest({ ...given, handler, name: `${given.name}-${handler}` });
        const sharing = mapContainers(pod, (container) => ({
          ...container,
          mounts: [...(container.mounts ?? []), { containerPath: '/v', hostPath: volume }],
        }));
        get().add(sharing);
        return { handler, pod: sharing, volume };
      }),
    undo: (action) => undos.push(action),
  };
}
