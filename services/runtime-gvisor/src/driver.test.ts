import assert from 'node:assert/strict';
import { versionOf } from '@cribus/runtime-worker/engine-binary.ts';
import { describe, it } from 'mocha';
import { classify, commandsOf, commonArgs, describeDriver } from './driver.ts';
import { candidates } from './trial.ts';

describe("runsc's words", () => {
  it('become failures that a caller can act on', () => {
    for (const [operation, output, kind] of [
      ['wait', 'connecting to control server at PID 12: connection refused', 'not_found'],
      ['state', 'loading container: file does not exist', 'not_found'],
      ['exec', 'executable file not found in $PATH', 'invalid_argument'],
      ['kill', 'container not running', 'wrong_state'],
      ['create', 'something new', 'kubelet_reason'],
      [
        'create',
        'reading spec: root mount propagation option must specify private or slave: "rshared"',
        'unsupported',
      ],
    ] as const) {
      assert.equal(classify(operation, { exitCode: 128, output }).kind, kind, output);
    }
  });
});

describe("runsc's modes", () => {
  it('are tried from the best on, and never kvm unless it is asked for', () => {
    const all = candidates({ platform: '', network: 'auto' });
    assert.deepEqual(all[0], { platform: 'systrap', network: 'sandbox' });
    assert.deepEqual(all.at(-1), { platform: 'ptrace', network: 'host' });
    assert.ok(!all.some(({ platform }) => platform === 'kvm'));
    assert.deepEqual(candidates({ platform: 'kvm', network: 'host' }), [
      { platform: 'kvm', network: 'host' },
    ]);
  });

  it('use only flags that the release has', () => {
    assert.deepEqual(commonArgs('  -overlay2 value\n'), ['--overlay2=none']);
    assert.deepEqual(commonArgs('  -overlay\n'), []);
    assert.deepEqual(commonArgs('  -oci-seccomp\n    \tEnables'), ['--oci-seccomp']);
    assert.equal(versionOf('runsc version 0.0~20221219.0\nspec: 1'), '0.0~20221219.0');
  });

  it('say how a port of a pod is reached', () => {
    const help = 'Subcommands:\n\tport-forward     port forward to a secure container\n\tps   ps\n';
    const ways = (network: 'sandbox' | 'host', commands: readonly string[]) =>
      describeDriver({
        ...{ enginePath: '/runsc', relayingCreate: '/relay', version: '1', args: [], commands },
        mode: { platform: 'systrap', network },
        networkSetting: 'auto',
      }).portForward;
    assert.deepEqual(ways('sandbox', commandsOf(help)), ['engine', 'pod-address']);
    assert.deepEqual(ways('sandbox', []), ['pod-address']);
    assert.deepEqual(ways('host', commandsOf(help)), ['netns']);
  });
});
