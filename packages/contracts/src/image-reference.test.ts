import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { canonicalReference, findImage, parseImageReference } from './image-reference.ts';

const HEX = 'ab'.repeat(32);
const DIGEST = `sha256:${HEX}`;

describe('image references', () => {
  for (const [text, full] of [
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['user/app', 'docker.io/user/app:latest'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/a/b__c:v_1', 'localhost:5000/a/b__c:v_1'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    [`ghcr.io/x/y@${DIGEST}`, `ghcr.io/x/y@${DIGEST}`],
    [`ghcr.io/x/y:tag@${DIGEST}`, `ghcr.io/x/y@${DIGEST}`],
  ] as const) {
    it(`reads ${text}`, () => assert.equal(canonicalReference(parseImageReference(text)), full));
  }

  for (const text of [
    '',
    'Busybox',
    'a b',
    'busybox:',
    'busybox@sha256:12',
    `busybox@md5:${HEX}`,
    'host.example/',
    '/x',
    'x//y',
    '-x',
    'x:-tag',
    `x:${'t'.repeat(129)}`,
    DIGEST,
    HEX,
    'x'.repeat(600),
  ]) {
    it(`refuses ${JSON.stringify(text.slice(0, 30))}`, () => {
      assert.throws(() => parseImageReference(text), { kind: 'invalid_argument' });
    });
  }

  it('finds an image by each of its names', () => {
    const image = {
      id: DIGEST,
      repoTags: ['docker.io/library/busybox:latest'],
      repoDigests: [`docker.io/library/busybox@sha256:${'cd'.repeat(32)}`],
    };
    for (const name of [
      DIGEST,
      HEX,
      'busybox',
      'docker.io/library/busybox:latest',
      'ababab',
      `busybox@sha256:${'cd'.repeat(32)}`,
    ]) {
      assert.equal(findImage([image], name), image, name);
    }
    assert.equal(findImage([image], 'busybox:other'), undefined);
    assert.equal(findImage([image], `sha256:${'ee'.repeat(32)}`), undefined);
  });
});
