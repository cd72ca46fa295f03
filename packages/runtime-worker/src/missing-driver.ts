// What stands in for a driver whose engine is not there: its containers stay listed and can be
// removed as far as the host allows, and nothing can be created.

import type { HandlerConfig } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { RuntimeDriver } from './driver.ts';

/** `cause` says what is missing, with its path. */
export function missingDriver(config: HandlerConfig, cause: Failure): RuntimeDriver {
  return {
    family: config.family,
    enginePath: config.engine,
    engineVersion: '',
    unavailable: cause.message,
    warnings: [],
    features: {
      recursiveReadOnlyMounts: false,
      userNamespaces: false,
      supplementalGroupsPolicy: false,
      checkpoint: false,
      hostProcesses: false,
      hostNetwork: false,
    },
    details: {},
    command: config.engine,
    logPrefix: '',
    globalArgs: [],
    ociVersion: '1.0.2',
    sandboxModel: config.family === 'gvisor' ? 'root-container' : 'namespaces',
    exitSource: config.family === 'gvisor' ? 'wait' : 'monitor',
    statsSource: 'cgroup',
    signalBy: config.family === 'gvisor' ? 'engine' : 'process',
    portForward: [],
    execMode: config.family === 'gvisor' ? 'foreground' : 'detached',
    limitsBy: config.family === 'gvisor' ? 'nobody' : 'cgroup',
    amendSpec: (spec) => spec,
    classify: (operation) => new Failure('unavailable', cause.message, { stage: operation }),
  };
}
