// `cribus config`: the effective configuration, with what the last `up` chose where there was one.

import type { Invocation } from '../arguments.ts';
import { currentConfig, readPorts, urlsGiven } from '../stack/generated.ts';
import { openStack } from '../stack/open-stack.ts';
import { effectiveConfig, headedConfigText } from '../stack/services-config.ts';

export async function runConfig(invocation: Invocation): Promise<number> {
  const stack = await openStack(invocation);
  const [ports, last] = await Promise.all([readPorts(stack), currentConfig(stack)]);
  const config =
    ports === undefined
      ? stack.config
      : effectiveConfig(stack, {
          ports,
          ...urlsGiven(last),
          fallbackCniDirectory: last.cni.fallback_conf_dir,
        });
  const source = invocation.config ?? stack.paths.configFile;
  process.stdout.write(headedConfigText(config, [`The effective configuration, from ${source}.`]));
  return 0;
}
