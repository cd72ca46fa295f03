// AppArmor profiles: which are loaded, and loading one (apparmor_parser(8)).

import { existsSync, readFileSync } from 'node:fs';
import { isErrno } from './errno.ts';
import { resolveCommand, run } from './spawn.ts';

/** Where securityfs lists the loaded profiles (Documentation/admin-guide/LSM/apparmor.rst). */
const LOADED = '/sys/kernel/security/apparmor/profiles';
const PARSER = 'apparmor_parser';

/**
 * Names of the loaded profiles; undefined where the kernel doesn't tell, as without securityfs. A
 * line is `name (mode)`, and a name may hold spaces.
 */
export function loadedAppArmorProfiles(file = LOADED): string[] | undefined {
  try {
    const lines = readFileSync(file, 'utf8').split('\n');
    return lines.filter((line) => line !== '').map((line) => line.replace(/ \([^()]*\)$/, ''));
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return undefined;
    throw error;
  }
}

/** Whether profiles can be loaded here. */
export function canLoadAppArmorProfiles(): boolean {
  try {
    return existsSync(resolveCommand(PARSER));
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return false;
  }
}

/** Loads a profile, or replaces it. Throws with what the parser says. */
export async function loadAppArmorProfile(text: string, signal: AbortSignal): Promise<void> {
  const args = ['--replace', '--skip-cache'];
  const result = await run({ command: PARSER, args, stdin: Buffer.from(text), signal });
  if (result.exitCode === 0) return;
  throw new Error(`${PARSER}: ${result.stderr.toString('utf8').trim()}`);
}
