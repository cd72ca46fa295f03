// The version of the project, written into the bundles when they are built.

/** As in the workspace's package.json; `0.0.0-source` when run from the sources. */
export const VERSION: string = process.env['CRIBUS_VERSION'] ?? '0.0.0-source';
