// A node on which making things takes two seconds: its network plugin, its engine's `create`, and a
// registry are slow when a test says so.

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FaultNode, startFaultNode } from './fault-node.ts';
import type { Places } from './footprint.ts';

export type SlowStep = 'plugin' | 'create';

export interface SlowNode extends FaultNode {
  readonly places: Places;
  /** From now on the step takes two seconds, or no longer. */
  slow(step: SlowStep, isSlow: boolean): Promise<void>;
}

const SLOW_S = 2;

/** Starts it: a bridge network by a wrapper of the bridge plugin, runc by a wrapper of runc. */
export async function startSlowNode(): Promise<SlowNode> {
  const tools = await mkdtemp(join(tmpdir(), 'cribus-slow-'));
  const bridge = `fb-${randomBytes(4).toString('hex')}`;
  const ipam = join(tools, 'ipam', 'slow');
  const flag = (step: SlowStep) => join(tools, `slow-${step}`);
  const script = async (name: string, lines: readonly string[]) => {
    await writeFile(join(tools, name), ['#!/bin/sh', ...lines, ''].join('\n'));
    await chmod(join(tools, name), 0o755);
  };
  await script('slow-bridge', [
    `if [ "$CNI_COMMAND" = ADD ] && [ -e ${flag('plugin')} ]; then sleep ${SLOW_S}; fi`,
    'exec /usr/lib/cni/bridge',
  ]);
  await script('slow-runc', [
    `if [ -e ${flag('create')} ]; then`,
    `  for word; do if [ "$word" = create ]; then sleep ${SLOW_S}; fi; done`,
    'fi',
    'exec runc "$@"',
  ]);
  const node = await startFaultNode({
    config: [
      '[cni]',
      `conf_dir = "${join(tools, 'net.d')}"`,
      `bin_dirs = ["${tools}", "/usr/lib/cni"]`,
      '[runtimes.handlers.runc]',
      'family = "runc"',
      `engine = "${join(tools, 'slow-runc')}"`,
      '[runtimes.handlers.crun]',
      'family = "runc"',
      'engine = "crun"',
      '[runtimes.handlers.gvisor]',
      'family = "gvisor"',
      'engine = "runsc"',
    ].join('\n'),
    prepare: async () => {
      await mkdir(join(tools, 'net.d'));
      const plugin = {
        type: 'slow-bridge',
        bridge,
        isGateway: true,
        ipam: {
          type: 'host-local',
          dataDir: join(tools, 'ipam'),
          ranges: [[{ subnet: '10.250.77.0/24' }]],
        },
      };
      const list = { cniVersion: '1.0.0', name: 'slow', plugins: [plugin] };
      await writeFile(join(tools, 'net.d', '10-slow.conflist'), JSON.stringify(list));
    },
    cleanUp: async () => {
      // Made by the plugin for the first pod.
      execFileSync('ip', ['link', 'delete', bridge]);
      await rm(tools, { recursive: true });
    },
  });
  return {
    ...node,
    places: { root: node.stack.root, ipam, bridge },
    async slow(step, isSlow) {
      if (isSlow) await writeFile(flag(step), '');
      else await rm(flag(step), { force: true });
    },
  };
}
