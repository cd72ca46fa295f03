// The OCI runtime specification's types (runtime-spec v1.2, config.md and config-linux.md), as far as
// this project writes them.

export interface Spec {
  ociVersion: string;
  [key: string]: unknown;
}
