// The ways to name an image, brought to one spelling, as node operators know it from docker:
// "busybox" is docker.io/library/busybox:latest.

const DIGEST = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}$/;

/** The full name; a digest makes a tag beside it meaningless, so that goes. */
export function normaliseImageName(reference: string): string {
  const at = reference.indexOf('@');
  const digest = at < 0 ? '' : reference.slice(at);
  const named = at < 0 ? reference : reference.slice(0, at);
  const slash = named.lastIndexOf('/');
  const colon = named.lastIndexOf(':');
  const tag = colon > slash ? named.slice(colon + 1) : '';
  const repository = withHost(colon > slash ? named.slice(0, colon) : named);
  if (digest !== '') return `${repository}${digest}`;
  return `${repository}:${tag === '' ? 'latest' : tag}`;
}

/** True for a bare digest such as sha256:…, which can only be an id. */
export function isDigest(reference: string): boolean {
  return DIGEST.test(reference);
}

/** The first component is a host when it could not be a path: it has a dot or a port, or is localhost. */
function withHost(repository: string): string {
  const slash = repository.indexOf('/');
  const first = slash < 0 ? '' : repository.slice(0, slash);
  if (first === 'index.docker.io') return withHost(`docker.io${repository.slice(slash)}`);
  if (first === 'docker.io') {
    const rest = repository.slice(slash + 1);
    return rest.includes('/') ? repository : `docker.io/library/${rest}`;
  }
  if (first === 'localhost' || /[.:]/.test(first)) return repository;
  return slash < 0 ? `docker.io/library/${repository}` : `docker.io/${repository}`;
}
