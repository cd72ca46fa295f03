// Version: the first thing a kubelet asks.

import type { VersionRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { VersionResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';

/** The kubelet refuses any other (kubelet, kuberuntime: kubeRuntimeAPIVersion). */
const KUBELET_API_VERSION = '0.1.0';

export function version(gateway: Gateway): Verb<VersionRequest, VersionResponse> {
  const answer = VersionResponse.fromPartial({
    version: KUBELET_API_VERSION,
    runtimeName: 'cribus',
    runtimeVersion: gateway.version,
    runtimeApiVersion: 'v1',
  });
  return async () => answer;
}
