// Containers that run on after their records are gone, as when the state directory was lost: `cribus
// doctor --fix` ends them, and the next start finds nothing of them.

import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { containerPaths, handlerPaths } from '@cribus/contracts/paths.ts';
import { identify, isAlive } from '@cribus/host/processes.ts';
import { describe, it } from 'mocha';
import { pidOf, runPod } from './harness/pods.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

describe('cribus doctor on a node that lost its records', () => {
  const suite = stackSuite();

  for (const handler of HANDLERS) {
    it(`ends a container of ${handler}, and leaves nothing of it`, async () => {
      const { image, stack, cri } = suite;
      const { containerId } = await runPod(stack, { image, handler, script: 'sleep 1000' });
      const process = identify(await pidOf(cri, containerId));
      assert.ok(process !== undefined);
      assert.equal((await stack.cribus('down')).code, 0);
      const roots = {
        run: join(stack.root, 'run'),
        state: join(stack.root, 'state'),
        etc: join(stack.root, 'etc'),
        log: join(stack.root, 'log'),
      };
      // Of a gVisor pod the Sentry's, too.
      for (const id of readdirSync(handlerPaths(roots, handler).containers)) {
        rmSync(containerPaths(roots, handler, id).record);
      }
      const found = await stack.cribus('doctor');
      const lost = `${handler} container ${containerId.slice(0, 13)}, which has no record: its processes, monitor `;
      assert.ok(found.stdout.replaceAll(/\s+/g, ' ').includes(lost), found.stdout);
      const fixed = await stack.cribus('doctor', '--fix', '--yes');
      assert.equal(fixed.code, 0, fixed.stdout + fixed.stderr);
      assert.equal(isAlive(process), false);
      assert.match((await stack.cribus('doctor')).stdout, /^ok +leftovers +none of a crash$/m);
      assert.equal((await stack.cribus('up', '--detach')).code, 0);
    });
  }
});
