import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { askPages, pageAfter } from './pages.ts';

describe('a list in pages', () => {
  const object = (id: string) => ({ id });

  it('is whole when it is asked for page by page, though an object of an earlier page goes meanwhile', async () => {
    let all = ['c', 'a', 'e', 'b', 'd'].map(object);
    const seen: string[] = [];
    const pages = askPages(async (token) => pageAfter(all, { token, objectsMax: 2 }));
    for await (const { page } of pages) {
      seen.push(page.map(({ id }) => id).join(''));
      all = all.filter(({ id }) => id !== 'a');
    }
    assert.deepEqual(seen, ['ab', 'cd', 'e']);
  });

  it('has no next page when the last one is full', () => {
    const all = ['a', 'b'].map(object);
    assert.equal(pageAfter(all, { token: '', objectsMax: 2 }).nextPageToken, '');
  });

  it('fails where its pages have no end', async () => {
    const endless = askPages(async () => ({ nextPageToken: 'again' }));
    await assert.rejects(async () => {
      for await (const page of endless) assert.equal(page.nextPageToken, 'again');
    }, /over 10000 pages/);
  });
});
