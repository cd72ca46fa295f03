// What makes a CDI spec file valid, which device of which file counts, and what its edits do to a
// spec.

import assert from 'node:assert/strict';
import { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { buildContainerSpec } from '../build-spec.ts';
import { type CaseInput, check, outcome, specInput } from '../spec-cases.ts';
import type { CdiInput } from './apply-edits.ts';
import { requestedCdiDevices } from './cdi-names.ts';
import { parseCdiSpec } from './cdi-spec.ts';
import { type CdiFile, selectCdiEdits } from './select-edits.ts';

const device = (name: string, containerEdits: object, more: object = {}) => ({
  name,
  containerEdits,
  ...more,
});
const spec = (given: object = {}) => ({
  cdiVersion: '0.3.0',
  kind: 'vendor.example/gpu',
  devices: [device('one', { env: ['A=1'] })],
  ...given,
});
const edited = (containerEdits: object, cdiVersion = '0.3.0') =>
  spec({ cdiVersion, devices: [device('one', containerEdits)] });

describe('a CDI spec', () => {
  it('is refused for what is wrong in it, and for fields newer than its version', () => {
    const node = (more: object) => edited({ deviceNodes: [{ path: '/dev/x', ...more }] });
    const hook = (more: object) =>
      edited({ hooks: [{ hookName: 'poststop', path: '/bin/x', ...more }] });
    const cases: Readonly<Record<string, unknown>> = {
      minimal: spec(),
      'a v in front': spec({ cdiVersion: 'v1.0.0' }),
      'null for absent': spec({ annotations: null, containerEdits: { mounts: null, env: null } }),
      'no object': [],
      'no version': spec({ cdiVersion: undefined }),
      'unknown version': spec({ cdiVersion: '2.0.0' }),
      'too old a version': spec({ cdiVersion: '0.2.0' }),
      'a number as version': spec({ cdiVersion: 0.5 }),
      'unknown field': spec({ device: [] }),
      'unknown field deep inside': node({ mode: 0o600 }),
      'kind without class': spec({ kind: 'vendor.example' }),
      'kind with a bad vendor': spec({ kind: '1vendor/gpu' }),
      'kind with two classes': spec({ kind: 'vendor.example/a/b' }),
      'no devices': spec({ devices: [] }),
      'device twice': spec({
        devices: [device('a', { env: ['A=1'] }), device('a', { env: ['A=2'] })],
      }),
      'device with a bad name': spec({ devices: [device('a b', { env: ['A=1'] })] }),
      'device without edits': spec({ devices: [device('a', {})] }),
      'variable without a name': edited({ env: ['=x'] }),
      'relative device path': node({ path: 'dev/x' }),
      'device of another type': node({ type: 'd' }),
      'device with huge numbers': node({ type: 'c', major: 1, minor: 2 ** 20 }),
      'device with wrong permissions': node({ permissions: 'rx' }),
      'hook of another name': hook({ hookName: 'preboot' }),
      'hook of no path': hook({ path: '' }),
      'hook with no time': hook({ timeout: 0 }),
      'mount without a source': edited({ mounts: [{ containerPath: '/x' }] }),
      'closID of two parts': edited({ intelRdt: { closID: 'a/b' } }, '0.7.0'),
      'mount type in 0.3.0': edited({
        mounts: [{ hostPath: 'a', containerPath: '/a', type: 'tmpfs' }],
      }),
      'hostPath in 0.3.0': node({ hostPath: '/dev/y' }),
      'name with a digit first in 0.3.0': spec({ devices: [device('0', { env: ['A=1'] })] }),
      'annotations in 0.3.0': spec({ annotations: { a: 'b' } }),
      'class with a dot in 0.3.0': spec({ kind: 'vendor.example/a.b' }),
      'groups in 0.3.0': edited({ additionalGids: [1] }),
      'intelRdt in 0.6.0': edited({ intelRdt: { closID: '/' } }, '0.6.0'),
      'netDevices in 1.0.0': edited(
        { netDevices: [{ hostInterfaceName: 'a', name: 'b' }] },
        '1.0.0',
      ),
      'all that is new in 1.1.0': edited(
        {
          netDevices: [{ hostInterfaceName: 'a', name: 'b' }],
          intelRdt: { schemata: ['x'], enableMonitoring: true },
        },
        '1.1.0',
      ),
    };
    const results = Object.entries(cases).map(([title, value]) => [
      title,
      outcome(() => parseCdiSpec(value).kind),
    ]);
    check('cdi-specs', Object.fromEntries(results));
  });

  it('is asked for by field and by annotation, each device once, by whole names only', () => {
    const asked = (names: readonly string[], annotations: Readonly<Record<string, string>> = {}) =>
      outcome(() =>
        requestedCdiDevices(
          ContainerConfig.fromPartial({ CDIDevices: names.map((name) => ({ name })), annotations }),
        ),
      );
    assert.deepEqual(
      asked(['v.io/gpu=0', 'v.io/gpu=0'], {
        'cdi.k8s.io/p': 'v.io/nic=a:1,v.io/gpu=0',
        other: 'x',
      }),
      ['v.io/gpu=0', 'v.io/nic=a:1'],
    );
    assert.deepEqual(asked([], { other: 'v.io/gpu=0' }), []);
    for (const name of ['', 'gpu0', 'v.io/gpu', 'gpu=0', 'v.io/gpu=', 'v.io/=0', 'v.io/gpu=0=1']) {
      assert.match(String(asked([name])), /^invalid_argument: CDI device "/, name);
    }
  });

  it('has precedence by its directory alone, and no rival in the same one', () => {
    const file = (path: string, priority: number, env: string): CdiFile => ({
      path,
      priority,
      content: { spec: parseCdiSpec(edited({ env: [env] })) },
    });
    const select = (...files: CdiFile[]) =>
      outcome(() =>
        selectCdiEdits(['vendor.example/gpu=one'], { files, directories: ['/low', '/high'] })
          .flatMap((edits) => edits.env)
          .join(),
      );
    assert.equal(select(file('/high/a', 1, 'A=high'), file('/low/a', 0, 'A=low')), 'A=high');
    assert.equal(
      select(file('/low/a', 0, 'A=1'), file('/low/b', 0, 'A=2'), file('/high/a', 1, 'A=3')),
      'A=3',
      'rivals below do not matter',
    );
    assert.equal(
      select(file('/low/a', 0, 'A=1'), file('/high/a', 1, 'A=2'), file('/high/b', 1, 'A=3')),
      'wrong_state: CDI device vendor.example/gpu=one is both in /high/a and in /high/b',
    );
    assert.equal(
      select({ path: '/low/x', priority: 0, content: { invalid: 'it is no JSON' } }),
      'not_found: CDI device vendor.example/gpu=one not found in /low, /high; invalid there: /low/x: it is no JSON',
    );
  });

  it('edits a spec', () => {
    const nodes: CdiInput['nodes'] = new Map([
      [
        '/dev/vda',
        { path: '/dev/vda', type: 'b', major: 254, minor: 0, fileMode: 0o660, uid: 0, gid: 6 },
      ],
    ]);
    const build = (edits: object, given: CaseInput = {}, cdiVersion = '1.1.0') =>
      outcome(() => {
        const parsed = parseCdiSpec(edited(edits, cdiVersion));
        const cdi = { edits: parsed.devices.map((one) => one.containerEdits), nodes };
        const built = buildContainerSpec({ ...specInput(given), cdi });
        const { process, mounts, linux, hooks } = built.spec;
        return {
          env: process.env.filter((line) => line.startsWith('A=') || line.startsWith('PATH=')),
          gids: built.user.linux?.supplementalGroups,
          mounts: mounts
            .map((mount) => `${mount.destination} ${mount.type} ${mount.source} ${mount.options}`)
            .filter((line) => line.includes('vendor') || line.startsWith('/etc/hostname')),
          devices: linux.devices,
          rules: linux.resources.devices.slice(10),
          hooks,
          intelRdt: linux.intelRdt,
        };
      });
    const node = (more: object, given: CaseInput = {}) =>
      build({ deviceNodes: [{ path: '/dev/x', ...more }] }, given);
    check('cdi-edits', {
      environment: build({ env: ['A=1', 'PATH=/vendor', 'A=2'] }),
      groups: build({ additionalGids: [0, 5, 5], additionalGIDs: [6] }),
      mounts: build({
        mounts: [
          { hostPath: '/vendor/b', containerPath: '/x/y/z' },
          { hostPath: '/vendor/a', containerPath: '/x/', options: ['ro', 'rbind'] },
          { hostPath: '/vendor/hostname', containerPath: '/etc/hostname', type: 'none' },
          { hostPath: 'vendor', containerPath: '/t', type: 'tmpfs', options: ['size=1m'] },
        ],
      }),
      hooks: build({
        hooks: [
          { hookName: 'poststop', path: '/bin/a', args: ['a', 'b'], env: ['A=1'], timeout: 3 },
          { hookName: 'poststop', path: '/bin/b' },
        ],
      }),
      'node of the host': node({ hostPath: '/dev/vda' }),
      'node with an owner, of a user': node(
        { hostPath: '/dev/vda', uid: 0 },
        { security: { runAsUser: { value: 1000n } } },
      ),
      'node of numbers': node({
        type: 'u',
        major: 10,
        minor: 229,
        fileMode: 0o600,
        permissions: 'r',
      }),
      'node that nobody may use': node({ type: 'c', major: 10, minor: 229, permissions: 'none' }),
      'node of another type': node({ hostPath: '/dev/vda', type: 'c' }),
      fifo: node({ type: 'p' }),
      'node that is nowhere': node({}),
      'node that the handler has not': node(
        { hostPath: '/dev/vda' },
        { host: { devicePaths: [] } },
      ),
      'hook that the handler has not': build(
        { hooks: [{ hookName: 'createContainer', path: '/bin/a' }] },
        { host: { hooks: ['poststop'] } },
      ),
      rdt: build({ intelRdt: { closID: 'fast', memBwSchema: null } }, { host: { resctrl: true } }),
      'rdt without resctrl': build({ intelRdt: { closID: 'fast' } }),
      'network devices': build({ netDevices: [{ hostInterfaceName: 'a', name: 'b' }] }),
    });
  });
});
