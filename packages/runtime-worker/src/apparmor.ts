// What of AppArmor a container can have: the profiles that are loaded at this moment, and the default
// one, which is loaded when the first container wants it.

import {
  canLoadAppArmorProfiles,
  loadAppArmorProfile,
  loadedAppArmorProfiles,
} from '@cribus/host/apparmor.ts';
import { APPARMOR_DEFAULT, APPARMOR_DEFAULT_NAME } from '@cribus/oci/apparmor-default.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import type { Worker } from './worker.ts';

const LOAD_BUDGET_MS = 10_000;

type AppArmorFacts = Pick<
  HostFacts,
  | 'appArmorDefaultLacking'
  | 'appArmorDefaultProfile'
  | 'appArmorProfiles'
  | 'handlerWithoutAppArmor'
>;

/** Nothing on a host without AppArmor. */
export async function appArmorFacts(worker: Worker, facts: HostFacts): Promise<AppArmorFacts> {
  // runsc ignores a profile, and the Sentry's processes are none of the host's.
  if (worker.driver.family === 'gvisor') return { handlerWithoutAppArmor: worker.handler };
  if (!facts.appArmor) return {};
  const loaded = loadedAppArmorProfiles();
  const known = loaded === undefined ? {} : { appArmorProfiles: loaded };
  const withDefault = { ...known, appArmorDefaultProfile: APPARMOR_DEFAULT_NAME };
  if (loaded?.includes(APPARMOR_DEFAULT_NAME) === true) return withDefault;
  if (!canLoadAppArmorProfiles()) {
    return { ...known, appArmorDefaultLacking: 'there is no apparmor_parser to load it' };
  }
  const { clock, log } = worker.service;
  try {
    await loadAppArmorProfile(APPARMOR_DEFAULT, clock.timeout(LOAD_BUDGET_MS));
    return withDefault;
  } catch (error) {
    log.warn({ error: String(error) }, 'the default AppArmor profile could not be loaded');
    return { ...known, appArmorDefaultLacking: String(error) };
  }
}
