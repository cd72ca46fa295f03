// The specs of a sandbox's own process for recorded RunPodSandbox requests of a kubelet.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, it } from 'mocha';
import { buildSandboxSpec } from './build-sandbox-spec.ts';
import {
  CRAMPED_HOST,
  check,
  HOST,
  outcome,
  POD_NAMESPACES,
  recordedSandbox,
} from './spec-cases.ts';
import type { SandboxSpecInput } from './spec-input.ts';

const SAMPLES = readdirSync(new URL('./fixtures', import.meta.url))
  .filter((name) => name.startsWith('RunPodSandbox'))
  .sort();

function sandboxInput(name: string): SandboxSpecInput {
  const sandbox = recordedSandbox(name);
  const spaces = sandbox.linux?.securityContext?.namespaceOptions;
  const users = spaces?.usernsOptions;
  const hostNetwork = spaces?.network === 2;
  return {
    sandboxId: '5a5d',
    sandbox,
    rootfs: '/run/5a5d/rootfs',
    args: ['/catatonit', '-P'],
    namespaces: {
      ...POD_NAMESPACES,
      ...(hostNetwork ? { network: 'host', uts: 'host' } : {}),
      ...(users !== undefined && users.uids.length > 0 ? { user: '/run/pins/user' } : {}),
    },
    host: HOST,
    cgroupsPath: '/kubepods/pod-uid-1/5a5d',
    binds: [{ source: '/usr/bin/catatonit', destination: '/catatonit' }],
    ...(users === undefined ? {} : { uidMappings: users.uids, gidMappings: users.gids }),
    annotations: {},
  };
}

describe('buildSandboxSpec', () => {
  for (const name of SAMPLES) {
    it(`builds ${name}`, () => {
      check(name.replace('.json', ''), buildSandboxSpec(sandboxInput(name)));
    });
  }

  it('confines the process by the profile that it is given', () => {
    const input = sandboxInput('RunPodSandbox.json');
    const { process } = buildSandboxSpec({ ...input, appArmorProfile: 'own' }).spec;
    assert.equal(process.apparmorProfile, 'own');
    assert.equal('apparmorProfile' in buildSandboxSpec(input).spec.process, false);
  });

  it('refuses what can not run and lowers what this host can not do', () => {
    const input = sandboxInput('RunPodSandbox.json');
    check('sandbox-errors', {
      nothing: outcome(() => buildSandboxSpec({ ...input, args: [] })),
      'no mappings': outcome(() =>
        buildSandboxSpec({
          ...input,
          namespaces: { ...POD_NAMESPACES, user: '/u' },
          uidMappings: [],
        }),
      ),
      cramped: outcome(() => buildSandboxSpec({ ...input, host: CRAMPED_HOST }).notes),
    });
  });
});
