import assert from 'node:assert/strict';
import type { Spec } from '@cribus/oci/spec.ts';
import type { SpecRole } from '@cribus/runtime-worker/driver.ts';
import { versionOf } from '@cribus/runtime-worker/engine-binary.ts';
import { describe, it } from 'mocha';
import { classify, describeDriver, flavourOf, parseFeatures } from './driver.ts';

describe("runc's and crun's words", () => {
  it('become failures that a caller can act on', () => {
    for (const [operation, output, kind] of [
      ['delete', 'container does not exist', 'not_found'],
      ['delete', "cannot open directory '/e/x': No such file or directory", 'not_found'],
      ['kill', 'container not running', 'wrong_state'],
      ['exec', 'exec failed: exec: "x": executable file not found in $PATH', 'invalid_argument'],
      ['create', 'exec: "/x": stat /x: no such file or directory: unknown', 'invalid_argument'],
      ['create', 'write /sys/fs/cgroup: no space left on device', 'limit'],
      ['start', 'something new', 'kubelet_reason'],
    ] as const) {
      assert.equal(classify(operation, { exitCode: 1, output }).kind, kind, output);
    }
  });

  it('are read out of JSON log lines', () => {
    const output = '{"level":"error","msg":"container \\"a\\" does not exist","time":"t"}';
    const failure = classify('state', { exitCode: 1, output });
    assert.equal(failure.message, 'engine state: container "a" does not exist');
  });
});

describe('the driver of runc and crun', () => {
  it('knows which is which', () => {
    assert.equal(flavourOf('crun version 1.8.1\ncommit: x'), 'crun');
    assert.equal(flavourOf('runc version 1.1.5+ds1\n'), 'runc');
    assert.equal(versionOf('runc version 1.1.5+ds1\n'), '1.1.5+ds1');
  });

  it('says what was probed', () => {
    const probed = {
      enginePath: '/usr/sbin/runc',
      command: '/usr/sbin/runc',
      flavour: 'runc',
      checkpoints: { possible: false, words: 'criu is not installed on this host' },
      version: '1',
      features: parseFeatures('{"mountOptions":["ro","rro"]}'),
      systemd: true,
      cgroupVersion: 'v2',
      extraArgs: ['--debug'],
    } as const;
    const driver = describeDriver(probed);
    assert.equal(driver.features.recursiveReadOnlyMounts, true);
    assert.deepEqual(driver.globalArgs.slice(-2), ['--systemd-cgroup', '--debug']);
    const crun = describeDriver({ ...probed, flavour: 'crun', features: parseFeatures('usage') });
    assert.equal(crun.features.recursiveReadOnlyMounts, false);
    for (const [version, knows] of [
      ['1.3', false],
      ['1.4', true],
      ['1.8.1', true],
      ['2.0', true],
    ] as const) {
      const { features } = describeDriver({ ...probed, flavour: 'crun', version, features: {} });
      assert.equal(features.recursiveReadOnlyMounts, knows, version);
    }
    assert.equal(crun.logPrefix, 'file:');
    const spec = { annotations: { kept: 'yes' } } as unknown as Spec;
    const role = { kind: 'container' } as SpecRole;
    assert.equal(driver.amendSpec(spec, role), spec);
    assert.deepEqual(
      crun.amendSpec(spec, role).annotations,
      { kept: 'yes', 'run.oci.systemd.subgroup': 'container' },
      'systemd would reset what the scope itself has',
    );
    assert.deepEqual([driver.scopeSubgroup, crun.scopeSubgroup], [undefined, 'container']);
    const onV1 = describeDriver({ ...probed, flavour: 'crun', cgroupVersion: 'v1' });
    assert.equal(onV1.scopeSubgroup, undefined);
  });
});
