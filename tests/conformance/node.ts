// A stack of its own for critest: on its own root and ports, with every registry's name leading to
// one on loopback.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Registry, startRegistry } from '@cribus/cli/tour/registry.ts';
import { writeHosts } from '../e2e/harness/images.ts';
import { type Stack, startStack } from '../e2e/harness/stack.ts';
import { preparedCritest } from './critest.ts';
import { pushImages } from './images.ts';

export interface Workshop {
  readonly registry: Registry;
  /** The program to run, made to know our images. */
  readonly critest: string;
  readonly directory: string;
  close(): Promise<void>;
}

/** Builds and serves the images. Raises an Error for a person. */
export async function openWorkshop(critest: string): Promise<Workshop> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-conformance-'));
  const undo: (() => Promise<void>)[] = [() => rm(directory, { recursive: true, force: true })];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const registry = await startRegistry();
    undo.push(() => registry.stop());
    const digest = await pushImages(registry);
    const program = await preparedCritest(critest, { directory, digest });
    return { registry, critest: program, directory, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Brings a stack up whose pulls of any registry go to the workshop's. */
export async function startNode({ registry }: Workshop): Promise<Stack> {
  const stack = await startStack();
  await writeHosts(
    stack.root,
    '_default',
    `server = "${registry.url}"\n[host."${registry.url}"]\ncapabilities = ["pull", "resolve"]\n`,
  );
  return stack;
}
