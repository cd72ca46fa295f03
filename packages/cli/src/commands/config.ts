// `cribus config`: the effective configuration, with what the last `up` chose where there was one.

import type { Invocation } from '../arguments.ts';
import { currentConfig, readPorts } from '../stack/generated.ts';
import { openStack } from '../stack/open-stack.ts';
import { configText, effectiveConfig } from '../stack/services-config.ts';

export async function runConfig(invocation: Invocation): Promise<number> {
  const stack = await openStack(invocation);
  const ports = await readPorts(stack);
  const config =
    ports === undefined
      ? stack.config
      : effectiveConfig(stack, {
          ports,
          natsUrl: undefined,
          redisUrl: undefined,
          fallbackCniDirectory: (await currentConfig(stack)).cni.fallback_conf_dir,
        });
  const source = invocation.config ?? stack.paths.configFile;
  process.stdout.write(configText(config, [`The effective configuration, from ${source}.`]));
  return 0;
}
