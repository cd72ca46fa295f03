// Checkpoints through a client, with each handler: what a caller is told where criu can't work, as on
// most machines that run these tests, and that a hostile archive does nothing. The whole way with criu
// needs a kernel that it knows (tests/vm); services/runtime-runc/src/checkpoint.test.ts plays its part.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  CheckpointContainerRequest,
  CreateContainerRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { status as Code } from '@grpc/grpc-js';
import { describe, it } from 'mocha';
import { archive } from './harness/archive.ts';
import { runPod, shellContainer } from './harness/pods.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

interface OwnerInfo {
  readonly handler: {
    readonly name: string;
    readonly checkpoint: boolean;
    readonly details: Readonly<Record<string, string>>;
  } | null;
}

/** What criu itself says of this host; undefined where it works. */
function criuLacks(): RegExp | undefined {
  const check = spawnSync('criu', ['check'], { encoding: 'utf8' });
  if (check.error !== undefined) return /criu is not installed on this host/;
  return check.status === 0 ? undefined : /criu \S+ can't work with this kernel: ./;
}

/** crun says what it was built with. */
function usesCriu(handler: string): boolean {
  const { stdout } = spawnSync('crun', ['--version'], { encoding: 'utf8' });
  return handler === 'runc' || (handler === 'crun' && stdout.includes('+CRIU'));
}

describe('a checkpoint', () => {
  const suite = stackSuite();
  const lacks = criuLacks();

  async function handlerInfo(name: string) {
    const { info } = await suite.cri.call('status', StatusRequest.fromPartial({ verbose: true }));
    const owners = JSON.parse(info['owners'] ?? '[]') as OwnerInfo[];
    return owners.find(({ handler }) => handler?.name === name)?.handler ?? assert.fail();
  }

  for (const handler of HANDLERS) {
    it(`of a container of ${handler} is refused with criu's own reason where criu can't work, and leaves nothing`, async () => {
      const { checkpoint, details } = await handlerInfo(handler);
      const can = lacks === undefined && usesCriu(handler);
      assert.equal(checkpoint, can, 'advertised where it works, and nowhere else');
      if (can) return;
      if (handler === 'runc' && lacks !== undefined)
        assert.match(details['checkpoint'] ?? '', lacks);
      const { containerId } = await runPod(suite.stack, {
        image: suite.image,
        script: 'sleep 1000',
        handler,
      });
      const location = join(suite.stack.root, 'checkpoint.tar');
      const request = CheckpointContainerRequest.fromPartial({ containerId, location });
      const code = handler === 'gvisor' ? Code.UNIMPLEMENTED : Code.FAILED_PRECONDITION;
      await assert.rejects(suite.cri.call('checkpointContainer', request), {
        code,
        details: /criu/,
      });
      assert.deepEqual(
        readdirSync(suite.stack.root).filter((name) => name.includes('checkpoint')),
        [],
      );
    });

    it(`archive in the place of an image is refused by ${handler} before anything is made of it`, async () => {
      const { podId, config } = await runPod(suite.stack, {
        image: suite.image,
        script: 'sleep 1000',
        handler,
      });
      const path = join(suite.stack.root, 'hostile.tar');
      await writeFile(path, archive([{ name: '../../../../etc/cribus-was-here', data: 'x' }]));
      const container = shellContainer(path, 'true', { name: 'restored' });
      const request = { podSandboxId: podId, config: container, sandboxConfig: config };
      await assert.rejects(
        suite.cri.call('createContainer', CreateContainerRequest.fromPartial(request)),
        { details: /criu|leads out/ },
      );
    });
  }

  it('of a container that is not there, or of none, is refused as such', async () => {
    const call = (containerId: string, location: string) =>
      suite.cri.call(
        'checkpointContainer',
        CheckpointContainerRequest.fromPartial({ containerId, location }),
      );
    await assert.rejects(call('0123abcd', '/nowhere/x.tar'), { code: Code.NOT_FOUND });
    const { containerId } = await runPod(suite.stack, { image: suite.image, script: 'sleep 100' });
    await assert.rejects(call(containerId, ''), { code: Code.INVALID_ARGUMENT });
  });
});
