// RuntimeConfig: which cgroup driver the kubelet must use too. It must not change until a reboot.

import type { RuntimeConfigRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { CgroupDriver, RuntimeConfigResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';

export function runtimeConfig(gateway: Gateway): Verb<RuntimeConfigRequest, RuntimeConfigResponse> {
  const systemd = gateway.config.cgroups.driver === 'systemd';
  const cgroupDriver = systemd ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS;
  const answer = RuntimeConfigResponse.fromPartial({ linux: { cgroupDriver } });
  return async () => answer;
}
