// Names of CDI devices, as in vendor.com/class=name, and where a request has them.

import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';

/** How device plugins that know no CDI field ask for devices (CDI, pkg/cdi, annotations). */
const ANNOTATION_PREFIX = 'cdi.k8s.io/';
/** Far more than a container has devices; what a request may hold must end somewhere. */
const DEVICES_MAX = 1024;
const NAME_CHARACTERS_MAX = 63;
const VENDOR_CHARACTERS_MAX = 253;

/** What is wrong with a kind, as in vendor.com/class; undefined: nothing. */
export function cdiKindProblem(kind: string): string | undefined {
  const slash = kind.indexOf('/');
  if (slash <= 0 || slash === kind.length - 1) return 'must be <vendor>/<class>';
  const vendor = kind.slice(0, slash);
  const name = kind.slice(slash + 1);
  const whole = /^[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;
  if (!whole.test(vendor) || vendor.length > VENDOR_CHARACTERS_MAX) {
    return `the vendor must be up to ${VENDOR_CHARACTERS_MAX} of A-Z a-z 0-9 . _ -, from a letter to a letter or digit`;
  }
  if (!whole.test(name) || name.length > NAME_CHARACTERS_MAX) {
    return `the class must be up to ${NAME_CHARACTERS_MAX} of A-Z a-z 0-9 . _ -, from a letter to a letter or digit`;
  }
  return undefined;
}

/** What is wrong with the name of a device within its kind; undefined: nothing. */
export function cdiDeviceNameProblem(name: string): string | undefined {
  return /^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$/.test(name)
    ? undefined
    : 'must be of A-Z a-z 0-9 . _ - :, beginning and ending with a letter or digit';
}

/**
 * The devices that a configuration asks for by its field and by annotations, each once. Raises
 * invalid_argument for what can be no device's name, and limit for over 1,024 of them.
 */
export function requestedCdiDevices(config: ContainerConfig): string[] {
  const asked = config.CDIDevices.map(({ name }) => name);
  for (const [key, value] of Object.entries(config.annotations)) {
    if (key.startsWith(ANNOTATION_PREFIX)) asked.push(...value.split(','));
  }
  const names = [...new Set(asked)];
  if (names.length > DEVICES_MAX) {
    throw new Failure(
      'limit',
      `${names.length} CDI devices are over the maximum of ${DEVICES_MAX}`,
    );
  }
  for (const name of names) checkName(name);
  return names;
}

function checkName(name: string): void {
  const equals = name.indexOf('=');
  const problem =
    equals < 0
      ? 'must be <vendor>/<class>=<name>'
      : (cdiKindProblem(name.slice(0, equals)) ?? cdiDeviceNameProblem(name.slice(equals + 1)));
  if (problem === undefined) return;
  throw new Failure(
    'invalid_argument',
    `CDI device ${JSON.stringify(name.slice(0, 500))}: ${problem}`,
  );
}
