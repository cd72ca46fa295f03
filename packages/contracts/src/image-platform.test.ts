import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import {
  hostPlatform,
  isSamePlatform,
  parsePlatform,
  platformOfHandler,
  platformText,
  rankOf,
  rankOfImage,
} from './image-platform.ts';
import { findImage, findImages } from './image-reference.ts';

const ranks: readonly (readonly [string, string, boolean])[] = [
  ['linux/arm64', 'linux/arm64/v8', true],
  ['linux/arm/v6', 'linux/arm/v7', true],
  ['linux/arm/v7', 'linux/arm/v6', false],
  ['linux/amd64/v3', 'linux/amd64', false],
  ['linux/arm64', 'linux/amd64', false],
  ['windows/amd64', 'linux/amd64', false],
];

describe('platforms of images', () => {
  for (const [offered, wanted, runs] of ranks) {
    it(`${offered} ${runs ? 'runs' : 'does not run'} where ${wanted} is wanted`, () => {
      assert.equal(rankOf(parsePlatform(offered), parsePlatform(wanted)) >= 0, runs);
    });
  }

  it('an image whose builder left its platform out is for this machine', () => {
    assert.ok(rankOfImage('/', hostPlatform()) >= 0);
    assert.ok(isSamePlatform('/', platformText(hostPlatform())));
    assert.ok(isSamePlatform('linux/arm64', 'linux/arm64/v8'));
    assert.ok(!isSamePlatform('linux/arm/v6', 'linux/arm/v7'));
  });

  it('a handler has its configured platform, and this machine’s without one', () => {
    const runtimes = {
      default: 'runc',
      handlers: { runc: { image_platform: '' }, far: { image_platform: 'linux/s390x' } },
    };
    assert.deepEqual(platformOfHandler(runtimes, ''), hostPlatform());
    assert.deepEqual(platformOfHandler(runtimes, 'unknown'), hostPlatform());
    assert.equal(platformText(platformOfHandler(runtimes, 'far')), 'linux/s390x');
  });

  it('a tag of several platforms means the image that fits best, and an id its image always', () => {
    const image = (digit: string, platform: string) => ({
      id: `sha256:${digit.repeat(64)}`,
      repoTags: ['docker.io/library/box:1'],
      repoDigests: [],
      platform,
    });
    const images = [
      image('1', 'linux/arm/v6'),
      image('2', 'linux/arm/v7'),
      image('3', 'linux/s390x'),
    ];
    const find = (name: string, wanted: string) =>
      findImage(images, name, parsePlatform(wanted))?.platform;
    assert.equal(find('box:1', 'linux/arm/v7'), 'linux/arm/v7');
    assert.equal(find('box:1', 'linux/arm/v6'), 'linux/arm/v6');
    assert.equal(find('box:1', 'linux/amd64'), undefined);
    assert.equal(find('3'.repeat(64), 'linux/amd64'), 'linux/s390x');
    assert.deepEqual(findImages(images, 'box:1'), images);
    assert.deepEqual(findImages(images, '3'.repeat(12)), images.slice(2));
    assert.deepEqual(findImages(images, 'box:2'), []);
  });
});
