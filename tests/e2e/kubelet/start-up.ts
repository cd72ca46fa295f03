// The calls with which a kubelet starts, in the order in which a real one (1.36.2) was seen to make
// them, with the reasons for which it would not go on.

import assert from 'node:assert/strict';
import { statfsSync } from 'node:fs';
import {
  ImageFsInfoRequest,
  ListContainersRequest,
  ListImagesRequest,
  ListMetricDescriptorsRequest,
  ListPodSandboxRequest,
  UpdateRuntimeConfigRequest,
  type VersionResponse,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { KubeletClient } from './client-checks.ts';

/** The kubelet's kubeRuntimeAPIVersion. */
const API_VERSION = '0.1.0';
/** getCgroupDriverFromCRI has no way out of its loop at a success. */
const RUNTIME_CONFIGS = 3;

/** Answers what may not differ from one start to the next. */
export async function startUp(client: KubeletClient, podCidr: string) {
  const version = await client.ask('version', { version: '' });
  assertVersion(version);
  const { imageFilesystems } = await client.ask('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
  const [filesystem] = imageFilesystems;
  const mountpoint = filesystem?.fsId?.mountpoint ?? '';
  const { blocks, bsize } = statfsSync(mountpoint);
  assert.ok(blocks * bsize > 0, `InvalidDiskCapacity: ${mountpoint}`);
  assert.ok((filesystem?.timestamp ?? 0n) > 0n && filesystem?.usedBytes !== undefined);
  const configs = [];
  for (let count = 0; count < RUNTIME_CONFIGS; count += 1) {
    configs.push(await client.ask('runtimeConfig', {}));
  }
  assertVersion(await client.ask('version', { version: API_VERSION }));
  const { status, runtimeHandlers, features } = await client.ask('status', { verbose: false });
  const all = { filter: {} };
  const { containers } = await client.ask('listContainers', ListContainersRequest.fromPartial(all));
  const images = [];
  for (let count = 0; count < 2; count += 1) {
    images.push((await client.ask('listImages', ListImagesRequest.fromPartial({}))).images);
  }
  const { items } = await client.ask('listPodSandbox', ListPodSandboxRequest.fromPartial(all));
  await client.ask(
    'updateRuntimeConfig',
    UpdateRuntimeConfigRequest.fromPartial({ runtimeConfig: { networkConfig: { podCidr } } }),
  );
  const { descriptors } = await client.ask(
    'listMetricDescriptors',
    ListMetricDescriptorsRequest.fromPartial({}),
  );
  const conditions = status?.conditions;
  const node = { version, mountpoint, conditions, runtimeHandlers, features, descriptors };
  return { ...node, configs, images, containers, items };
}

function assertVersion(answer: VersionResponse): void {
  const { version, runtimeName, runtimeVersion, runtimeApiVersion } = answer;
  assert.equal(version, API_VERSION);
  assert.ok(runtimeName && runtimeVersion && runtimeApiVersion, 'not all fields are set');
}
