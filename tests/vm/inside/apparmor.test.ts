// AppArmor: profiles are in force for the container and for what is executed in it, by the kernel's own
// word and by what it denies.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  type LinuxContainerSecurityContext,
  NamespaceMode,
  SecurityProfile_ProfileType as ProfileType,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { exec, type RunningPod } from '@cribus/e2e/harness/pods.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import { type InstalledNode, pidOf, provideNode, removePods, startPod } from './installed-node.ts';

const OWN = 'tests-deny-write';
const PROFILE = `profile ${OWN} flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  capability,
  umount,
  signal,
  deny /tmp/** w,
}
`;

type Security = Parameters<typeof LinuxContainerSecurityContext.fromPartial>[0];

describe('AppArmor', () => {
  let node: InstalledNode;
  const parser = (...args: readonly string[]) =>
    execFileSync('apparmor_parser', args, { input: PROFILE, stdio: ['pipe', 'pipe', 'pipe'] });

  before(async () => {
    node = await provideNode();
    parser('--replace');
  });
  afterEach(() => removePods(node));
  after(async () => {
    parser('--remove');
    await node?.close();
  });

  const start = (handler: string, securityContext: Security) =>
    startPod(node, {
      handler,
      privileged: securityContext?.privileged ?? false,
      container: { linux: { securityContext } },
    });
  /** As the kernel has it of the first process. */
  const profileOf = ({ containerId }: Pick<RunningPod, 'containerId'>) =>
    readFileSync(`/proc/${pidOf(containerId)}/attr/current`, 'utf8').trim();
  const localhost = (localhostRef: string): Security => ({
    apparmor: { profileType: ProfileType.Localhost, localhostRef },
  });

  for (const handler of ['runc', 'crun']) {
    it(`denies what a profile of the host denies, to a container of ${handler} and to its commands`, async () => {
      const pod = await start(handler, localhost(OWN));
      assert.equal(profileOf(pod), `${OWN} (enforce)`);
      const denied = await exec(node.cri, pod.containerId, ['touch', '/tmp/file']);
      assert.match(denied.stderr, /Permission denied/);
      assert.notEqual(denied.exitCode, 0);
      const allowed = await exec(node.cri, pod.containerId, ['touch', '/root/file']);
      assert.equal(allowed.exitCode, 0, allowed.stderr);
      const own = await exec(node.cri, pod.containerId, ['cat', '/proc/self/attr/current']);
      assert.equal(own.stdout.trim(), `${OWN} (enforce)`);
    });

    it(`confines the init of a pod of ${handler} by the profile that the pod names`, async () => {
      const namespaceOptions = { pid: NamespaceMode.POD };
      const { podId, containerId } = await startPod(node, {
        handler,
        pid: NamespaceMode.POD,
        security: { apparmor: { profileType: ProfileType.Localhost, localhostRef: OWN } },
        container: { linux: { securityContext: { namespaceOptions } } },
      });
      assert.equal(profileOf({ containerId: podId }), `${OWN} (enforce)`);
      assert.equal(profileOf({ containerId }), 'cribus-default (enforce)');
    });

    it(`confines a container of ${handler} by the runtime's default profile, asked for or not`, async () => {
      const privileges = {
        capabilities: { addCapabilities: ['SYS_ADMIN'] },
        seccomp: { profileType: ProfileType.Unconfined },
      };
      const mount = ['mount', '-t', 'tmpfs', 'none', '/tmp'];
      const asked = { apparmor: { profileType: ProfileType.RuntimeDefault } };
      for (const security of [privileges, { ...privileges, ...asked }]) {
        const pod = await start(handler, security);
        assert.equal(profileOf(pod), 'cribus-default (enforce)');
        const denied = await exec(node.cri, pod.containerId, mount);
        assert.match(denied.stderr, /denied/, 'SYS_ADMIN could mount but for the profile');
      }
      const free = await start(handler, {
        ...privileges,
        apparmor: { profileType: ProfileType.Unconfined },
      });
      assert.equal(profileOf(free), 'unconfined');
      assert.equal((await exec(node.cri, free.containerId, mount)).exitCode, 0);
    });
  }

  it('leaves a privileged container unconfined, and takes the deprecated field', async () => {
    assert.equal(profileOf(await start('runc', { privileged: true })), 'unconfined');
    const byName = await start('runc', { apparmorProfile: `localhost/${OWN}` });
    assert.equal(profileOf(byName), `${OWN} (enforce)`);
  });

  it('refuses a profile that is not loaded, by its name', async () => {
    await assert.rejects(start('runc', localhost('no-such-profile')), {
      code: GRPC_CODE.INVALID_ARGUMENT,
      details: /apparmor profile not found: "no-such-profile"/,
    });
  });
});
