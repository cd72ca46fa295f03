// The version of the project, written into the bundles when they are built.

/** As in the workspace's package.json; `0.0.0-source` when run from the sources. */
export const VERSION: string = process.env['CRIBUS_VERSION'] ?? '0.0.0-source';

/**
 * What is added to the format of every record that is written: 1 in a build that stands for the next
 * version in a test of upgrades, 0 in every other.
 */
export const RECORD_FORMAT_RAISE = Number(process.env['CRIBUS_RECORD_FORMAT_RAISE'] ?? 0);
