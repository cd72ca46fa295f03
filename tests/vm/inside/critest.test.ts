// The host's critest in the machine: with AppArmor and cgroup v2 nothing is left to skip.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '@cribus/host/clock.ts';
import { after, before, describe, it } from 'mocha';
import { runCritest } from '../../conformance/critest.ts';
import { openWorkshop, type Workshop } from '../../conformance/node.ts';
import { ENDPOINT, type InstalledNode, provideNode, run, TREE } from './installed-node.ts';

const CRITEST = fileURLToPath(new URL('./critest', import.meta.url));
const MIRRORS = '/etc/cribus/certs.d/_default';
/** Of critest v1.36, without its benchmarks. */
const SPECS = 117;
const BUDGET_MS = 60 * 60_000;
const PROGRESS_EVERY_MS = 20_000;
/** Characters of the log after a failure. */
const LOG_SHOWN = 20_000;

describe('critest on cgroup v2 with AppArmor', () => {
  let node: InstalledNode;
  let workshop: Workshop;

  before(async () => {
    node = await provideNode('systemd', () => {
      run(join(TREE, 'deploy', 'install.sh'));
    });
    workshop = await openWorkshop(CRITEST);
    const { url } = workshop.registry;
    mkdirSync(MIRRORS, { recursive: true });
    writeFileSync(
      join(MIRRORS, 'hosts.toml'),
      `server = "${url}"\n[host."${url}"]\ncapabilities = ["pull", "resolve"]\n`,
    );
  });
  after(async () => {
    rmSync(MIRRORS, { recursive: true, force: true });
    await workshop?.close();
    await node?.close();
  });

  it('passes every spec under runc and skips none', async function () {
    this.timeout(BUDGET_MS);
    const ended = new AbortController();
    const progress = tellProgress(join(workshop.directory, 'runc.log'), ended.signal);
    const results = await runCritest({
      program: workshop.critest,
      endpoint: ENDPOINT,
      handler: 'runc',
      parallel: 1,
      websocket: false,
      focus: '',
      directory: workshop.directory,
      name: 'runc',
      signal: systemClock.timeout(BUDGET_MS),
    }).finally(() => ended.abort());
    await progress;
    const others = results
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ name, outcome, message }) => `${outcome}: ${name}: ${message}`);
    if (others.length > 0) console.log(endOf(join(workshop.directory, 'runc.log')));
    assert.deepEqual(others, []);
    assert.equal(results.length, SPECS);
  });
});

/** Ginkgo tells of failures where they occur, and sums them up at the end. */
function endOf(log: string): string {
  return readFileSync(log, 'utf8').slice(-LOG_SHOWN);
}

/** Ginkgo writes a dot for each spec that passed. */
async function tellProgress(log: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await systemClock.sleep(PROGRESS_EVERY_MS, signal).catch(() => undefined);
    const passed = readFileSync(log, 'utf8').split('•').length - 1;
    console.log(`      critest: ${passed} of ${SPECS} specs passed so far`);
  }
}
