// What the sandbox manager makes good: a crash, a reboot, a plugin that fails, a worker that is away.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isFailure } from '@cribus/contracts/failure.ts';
import { NamespaceMode } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { ReportSandboxExitRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { rootsBelow, sandboxPaths } from '@cribus/contracts/paths.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { describe, it } from 'mocha';
import { byId, managerSuite, pod, reported } from './testing/manager-suite.ts';

describe('sandbox manager, after something went wrong', () => {
  const suite = managerSuite();
  const { manager, worker, ask, run, get, leases } = suite;

  it('finishes at the next start what a crash left', async () => {
    const first = await manager();
    let started: ((record: SandboxRecord) => void) | undefined;
    const half = new Promise<SandboxRecord>((resolve) => {
      started = resolve;
    });
    const { seen } = await worker({
      start: async (record) => {
        if (record.config?.metadata?.name !== 'half') return;
        started?.(record);
        await systemClock.sleep(60_000, systemClock.timeout(1_000)).catch(() => undefined);
      },
    });
    const kept = await run(pod('kept'));
    const lost = await run(pod('lost'));
    const caught = run(pod('half')).catch((error: unknown) => error);
    const { id: halfId } = await half;
    await suite.crash(first);
    // As after a reboot, for one of them.
    unmountTree(sandboxPaths(rootsBelow(suite.root), lost.id).pins);
    await mkdir(join(rootsBelow(suite.root).run, 'sandboxes/stray'), { recursive: true });
    const again = await suite.restart();
    assert.equal((await get(kept.id))?.phase, SandboxPhase.READY);
    const marked = await get(lost.id);
    assert.equal(marked?.phase, SandboxPhase.NOTREADY);
    assert.match(marked?.reason ?? '', /namespaces are gone: net, ipc, uts/);
    assert.ok(!existsSync(join(rootsBelow(suite.root).run, 'sandboxes/stray')));
    // The call is asked again by the bus with its operation id, and makes the pod anew.
    const result = (await caught) as { id: string };
    assert.notEqual(result.id, halfId);
    assert.equal((await get(result.id))?.phase, SandboxPhase.READY);
    assert.ok(seen.some(({ verb, id }) => verb === 'remove-sandbox' && id === halfId));
    await systemClock.sleep(300);
    assert.equal((await leases()).length, 2);
    for (const id of [kept.id, lost.id, result.id]) await ask('remove-pod-sandbox', byId(id));
    assert.deepEqual(await leases(), []);
    assert.ok(again);
  });

  it('marks pods of an earlier boot not ready, frees their addresses, and removes them', async () => {
    const first = await manager();
    await worker();
    const ran = await run(pod('ran', { portMappings: [{ containerPort: 80, hostPort: 18081 }] }));
    const { id: ofHost } = await run(
      pod('of-host', {
        linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
      }),
    );
    await suite.crash(first);
    const { run: runs, state } = rootsBelow(suite.root);
    // A run directory on a disk keeps its files, and nothing is mounted on them any more.
    unmountTree(join(runs, 'sandboxes'));
    await writeFile(join(state, 'sandbox-manager/boot-id'), 'of an earlier boot');
    await suite.restart();
    for (const id of [ran.id, ofHost]) {
      assert.equal((await get(id))?.phase, SandboxPhase.NOTREADY);
      assert.equal((await get(id))?.reason, 'the node was restarted');
    }
    const limit = systemClock.timeout(8_000);
    while ((await leases()).length > 0) await systemClock.sleep(20, limit);
    const metadata = { name: 'ran', uid: 'ran-uid', namespace: 'default', attempt: 1 };
    const { id: anew } = await run(pod('ran', { metadata }));
    for (const record of [ran.id, ofHost, anew]) {
      await ask('stop-pod-sandbox', byId(record));
      await ask('remove-pod-sandbox', byId(record));
      assert.equal(existsSync(sandboxPaths(rootsBelow(suite.root), record).pins), false);
    }
  });

  it('tries a CNI DEL that failed again, at growing distances, and says so in the record', async () => {
    await manager();
    await worker();
    const { id } = await run(pod('stuck'));
    const broken = join(suite.root, 'bin', 'bridge');
    const script = await readFile(broken, 'utf8');
    await writeFile(
      broken,
      `#!/bin/sh\ndate +%s%3N >>${suite.root}/tries; echo out of order >&2; exit 3\n`,
    );
    await assert.rejects(ask('stop-pod-sandbox', byId(id)), /CNI DEL \(bridge\).*out of order/);
    const record = await get(id);
    assert.equal(record?.phase, SandboxPhase.STOPPING);
    assert.match(record?.reason ?? '', /^being stopped, .*CNI DEL \(bridge\).*out of order/);
    const tries = async () =>
      (await readFile(`${suite.root}/tries`, 'utf8')).trim().split('\n').map(Number);
    const end = systemClock.monotonicMs() + 25_000;
    while ((await tries()).length < 5) {
      assert.ok(systemClock.monotonicMs() < end, 'it is not tried again');
      await systemClock.sleep(50);
    }
    // Heartbeats, every two seconds, drive it: delays of one second and of two may come out alike.
    const [, first = 0, second = 0, third = 0, fourth = 0] = await tries();
    assert.ok(fourth - third > second - first + 500, `at ${first}, ${second}, ${third}, ${fourth}`);
    await writeFile(broken, script);
    // A caller needn't wait for the next one.
    await ask('stop-pod-sandbox', byId(id));
    assert.equal((await get(id))?.reason, 'stopped');
    assert.deepEqual(await leases(), []);
    await ask('remove-pod-sandbox', byId(id));
  }).timeout(40_000);

  it('resumes a stop when the worker is back, and takes note of an exit', async () => {
    await manager();
    const { service } = await worker();
    const { id } = await run(pod('later'));
    const exit = ReportSandboxExitRequest.fromPartial({ podSandboxId: id, reason: 'init died' });
    const { changed } = await ask('report-sandbox-exit', exit);
    assert.equal(reported(changed, id)?.phase, SandboxPhase.NOTREADY);
    assert.equal(reported(changed, id)?.reason, 'init died');
    await suite.stop(service);
    await assert.rejects(ask('stop-pod-sandbox', byId(id)), (error) =>
      isFailure(error, 'unavailable'),
    );
    assert.equal((await get(id))?.phase, SandboxPhase.STOPPING);
    assert.deepEqual(await leases(), []);
    await worker();
    const end = systemClock.monotonicMs() + 8_000;
    while ((await get(id))?.phase !== SandboxPhase.NOTREADY) {
      assert.ok(systemClock.monotonicMs() < end, 'the stop was not resumed');
      await systemClock.sleep(100);
    }
    await ask('remove-pod-sandbox', byId(id));
  });
});
