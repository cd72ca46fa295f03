// Lists that are longer than a message of the bus can be, in pages: how they are cut, and asked for.

/**
 * The page after `token` (the last id of the page before; empty for the first), ordered by id, so that
 * objects that come and go between two pages neither hide nor repeat others.
 */
export function pageAfter<T extends { readonly id: string }>(
  all: readonly T[],
  { token, objectsMax }: { readonly token: string; readonly objectsMax: number },
): { readonly page: readonly T[]; readonly nextPageToken: string } {
  const rest = all.filter(({ id }) => id > token).toSorted((a, b) => (a.id < b.id ? -1 : 1));
  const page = rest.slice(0, objectsMax);
  const nextPageToken = rest.length > page.length ? (page.at(-1)?.id ?? '') : '';
  return { page, nextPageToken };
}

/** An owner with more pages than that is broken. */
const PAGES_MAX = 10_000;

/** Asks for one page after the other until one names no next. Raises where there are over 10,000. */
export async function* askPages<T extends { readonly nextPageToken: string }>(
  ask: (pageToken: string) => Promise<T>,
): AsyncGenerator<T> {
  let pageToken = '';
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await ask(pageToken);
    yield answer;
    pageToken = answer.nextPageToken;
    if (pageToken === '') return;
  }
  throw new Error(`a list has over ${PAGES_MAX} pages`);
}
