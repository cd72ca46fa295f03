// What is tested in the virtual machine, in the order in which it is done there. Each phase is a file of
// tests in inside/.

/** Between phases: the machine is rebooted with what the one before left running. */
export const REBOOT = 'reboot';

interface Phase {
  readonly name: string;
  /** Runs before it, for what it leaves; undefined for a phase that makes what it needs itself. */
  readonly after?: readonly string[];
  /** Only where a critest is on the host's PATH. */
  readonly critest?: boolean;
}

const PHASES: readonly Phase[] = [
  { name: 'installed' },
  { name: 'upgraded' },
  { name: REBOOT },
  { name: 'rebooted', after: ['upgraded', REBOOT] },
  { name: 'systemd-driver' },
  { name: 'apparmor' },
  { name: 'checkpoint' },
  { name: 'cgroupfs-driver' },
  { name: 'purged' },
  { name: 'script' },
  { name: 'critest', critest: true },
  { name: 'uninstalled' },
];

/** Names that a person may give. */
export const PHASE_NAMES = PHASES.map(({ name }) => name).filter((name) => name !== REBOOT);

/**
 * The phases to run, with what they need before them; none named: all that this host can. Raises an Error
 * for a person where one is unknown, or needs a critest that is not there.
 */
export function planPhases(named: readonly string[], critest: boolean): string[] {
  const unknown = named.find((name) => !PHASE_NAMES.includes(name));
  if (unknown !== undefined) {
    throw new Error(`There is no phase "${unknown}": ${PHASE_NAMES.join(', ')}.`);
  }
  const lacking = PHASES.find(({ name, critest: needed }) => needed && named.includes(name));
  if (lacking !== undefined && !critest) {
    throw new Error(`The phase "${lacking.name}" needs a critest (v1.36) on the PATH.`);
  }
  const wanted = new Set(named);
  for (const { name, after = [] } of PHASES) {
    if (wanted.has(name)) for (const one of after) wanted.add(one);
  }
  return PHASES.filter(({ name, critest: needed }) =>
    named.length === 0 ? critest || needed !== true : wanted.has(name),
  ).map(({ name }) => name);
}
