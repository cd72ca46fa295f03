// A CNI network configuration list as it is read from a file, and which versions of it we speak: the
// sandbox manager runs it, and `cribus doctor` looks whether it would.

import { Failure } from './failure.ts';

/** Results of these look alike (CNI specification, section 5); older ones had other shapes. */
const CNI_VERSIONS = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

/** One plugin's own part of the configuration; `type` names its binary. */
export interface PluginConfig {
  readonly type: string;
  readonly capabilities?: Readonly<Record<string, boolean>>;
  readonly [key: string]: unknown;
}

export interface NetworkList {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly PluginConfig[];
}

/** CNI specification 1.0, section 1: what a network may be called. */
const NETWORK_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const PLUGINS_MAX = 32;

/**
 * Parses a list (`plugins`), or the configuration of a single plugin (`type`), which is a list of
 * one. Raises invalid_argument that says what is wrong, without naming the file.
 */
export function parseNetworkList(text: string): NetworkList {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw invalid(`is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isObject(raw)) throw invalid('is not a JSON object');
  const { name, cniVersion, plugins } = raw;
  if (typeof name !== 'string' || !NETWORK_NAME.test(name)) {
    throw invalid('"name" must start with a letter or digit, then also _ . -');
  }
  if (typeof cniVersion !== 'string' || !(CNI_VERSIONS as readonly string[]).includes(cniVersion)) {
    throw invalid(
      `"cniVersion" is ${JSON.stringify(cniVersion)}, supported are ${CNI_VERSIONS.join(', ')}`,
    );
  }
  const list = plugins === undefined ? [raw] : plugins;
  if (!Array.isArray(list) || list.length === 0 || list.length > PLUGINS_MAX) {
    throw invalid(`"plugins" must be a list of 1 to ${PLUGINS_MAX} plugins`);
  }
  return { name, cniVersion, plugins: list.map(parsePlugin) };
}

function parsePlugin(raw: unknown, index: number): PluginConfig {
  if (!isObject(raw)) throw invalid(`plugin ${index} is not a JSON object`);
  const { type, capabilities } = raw;
  // A slash would let a configuration name a binary outside the plugin directories.
  if (typeof type !== 'string' || type === '' || type.includes('/')) {
    throw invalid(`plugin ${index} has no "type", or one with a slash`);
  }
  if (capabilities !== undefined && !isObject(capabilities)) {
    throw invalid(`"capabilities" of plugin ${type} is not a JSON object`);
  }
  return raw as PluginConfig;
}

/** Whether a JSON value is an object: not null, no array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(message: string): Failure {
  return new Failure('invalid_argument', message);
}
