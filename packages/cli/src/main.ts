// bin/cribus: finds the command, runs it, and turns what it raises into one sentence and an exit
// code. Each command is loaded only when it is the one.

import { isFailure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import {
  COMMANDS,
  type CommandName,
  type Invocation,
  parseCommandLine,
  UsageError,
  usageText,
} from './arguments.ts';

type Command = (invocation: Invocation) => Promise<number>;

/** A command that is missing here does not compile. */
const LOADERS: { readonly [C in CommandName]: () => Promise<Command> } = {
  up: async () => (await import('./commands/up.ts')).runUp,
  down: async () => (await import('./commands/down.ts')).runDown,
  prepare: async () => (await import('./commands/prepare.ts')).runPrepare,
  status: async () => (await import('./commands/status.ts')).runStatus,
  doctor: async () => (await import('./commands/doctor.ts')).runDoctor,
  tour: async () => (await import('./commands/tour.ts')).runTourCommand,
  ps: async () => (await import('./commands/ps.ts')).runPs,
  pods: async () => (await import('./commands/pods.ts')).runPods,
  images: async () => (await import('./commands/images.ts')).runImages,
  pull: async () => (await import('./commands/pull.ts')).runPull,
  config: async () => (await import('./commands/config.ts')).runConfig,
  version: async () => (await import('./commands/version.ts')).runVersion,
  help: async () => async () => {
    console.log(usageText());
    return 0;
  },
};

async function main(): Promise<number> {
  try {
    const invocation = parseCommandLine(process.argv.slice(2));
    const command = await LOADERS[invocation.command]();
    return await command(invocation);
  } catch (error) {
    if (error instanceof UsageError) {
      const usage = error.command === undefined ? 'help' : COMMANDS[error.command].usage;
      console.error(`${error.message}\nUsage: cribus ${usage}`);
      return 2;
    }
    if (isFailure(error)) console.error(`cribus: ${error.message}`);
    else if (error instanceof Error && isErrno(error, 'EACCES', 'EPERM')) {
      const advice = process.geteuid?.() === 0 ? '' : ': this needs root; try it with sudo';
      console.error(`cribus: ${error.message}${advice}`);
    } else if (error instanceof Error && 'syscall' in error) {
      // The system's own sentence names the call and the path.
      console.error(`cribus: ${error.message}`);
    } else console.error(error);
    return 1;
  }
}

// Whoever reads our output may leave before its end, as `head` does.
process.stdout.on('error', () => {});
process.exitCode = await main();
// Watches and connections of a finished command must not keep it.
setImmediate(() => process.exit());
