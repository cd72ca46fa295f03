// What of AppArmor a container can have: the profiles that are loaded at this moment, and the default
// one, which each worker loads when its first container wants it.

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

/** Those that have loaded the profile themselves: what is there before may be of another release. */
const loaders = new WeakSet<Worker>();

/** Nothing on a host without AppArmor. */
export async function appArmorFacts(worker: Worker, facts: HostFacts): Promise<AppArmorFacts> {
  // runsc ignores a profile, and the Sentry's processes are none of the host's.
  if (worker.driver.family === 'gvisor') return { handlerWithoutAppArmor: worker.handler };
  if (!facts.appArmor) return {};
  const loaded = loadedAppArmorProfiles();
  const known = loaded === undefined ? {} : { appArmorProfiles: loaded };
  const there = loaded?.includes(APPARMOR_DEFAULT_NAME) === true;
  const withDefault = { ...known, appArmorDefaultProfile: APPARMOR_DEFAULT_NAME };
  if (there && loaders.has(worker)) return withDefault;
  if (!canLoadAppArmorProfiles()) {
    const lacking = 'there is no apparmor_parser to load it';
    return there ? withDefault : { ...known, appArmorDefaultLacking: lacking };
  }
  const { clock, log } = worker.service;
  try {
    await loadAppArmorProfile(APPARMOR_DEFAULT, clock.timeout(LOAD_BUDGET_MS));
    loaders.add(worker);
    return withDefault;
  } catch (error) {
    log.warn({ error: String(error) }, 'the default AppArmor profile could not be loaded');
    return there ? withDefault : { ...known, appArmorDefaultLacking: String(error) };
  }
}
