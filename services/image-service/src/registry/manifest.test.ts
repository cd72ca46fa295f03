import assert from 'node:assert/strict';
import { isFailure } from '@cribus/contracts/failure.ts';
import { parsePlatform } from '@cribus/contracts/image-platform.ts';
import { describe, it } from 'mocha';
import { choosePlatform, parseManifest } from './manifest.ts';

const ATTESTATION = { 'vnd.docker.reference.type': 'attestation-manifest' };
const wanted = parsePlatform('linux/arm/v7');

interface Entry {
  readonly platform?: object;
  readonly annotations?: object;
}

/** Of a list with these entries, the place of the one that is chosen. */
function chosen(entries: readonly Entry[]): number {
  const digestOf = (index: number) => `sha256:${String(index).padStart(64, '0')}`;
  const manifests = entries.map((entry, index) => ({
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: digestOf(index),
    size: 1,
    ...entry,
  }));
  const manifest = parseManifest(Buffer.from(JSON.stringify({ manifests })), '');
  assert.ok(manifest.kind === 'index');
  const { digest } = choosePlatform(manifest.entries, wanted);
  return manifests.findIndex((one) => one.digest === digest);
}

const arm = (variant: string) => ({ platform: { os: 'linux', architecture: 'arm', variant } });
const foreign = { platform: { os: 'linux', architecture: 's390x' } };

describe('a list of manifests', () => {
  const choices: readonly (readonly [string, readonly Entry[], number])[] = [
    ['the best that runs', [arm('v5'), arm('v8'), arm('v6')], 2],
    ['one that says that it runs before one that says nothing', [{}, foreign, arm('v7')], 2],
    ['the first that says nothing where no other runs', [foreign, {}, {}], 1],
    ['no attestation', [{ annotations: ATTESTATION }, { annotations: { a: 'b' } }], 1],
  ];
  for (const [what, entries, index] of choices) {
    it(`gives ${what}`, () => assert.equal(chosen(entries), index));
  }

  it('names what it has where it has nothing', () => {
    const refused = (entries: readonly Entry[], text: RegExp) =>
      assert.throws(
        () => chosen(entries),
        (error) => isFailure(error, 'not_found') && text.test(error.message),
      );
    refused([foreign, { annotations: ATTESTATION }], /only linux\/s390x$/);
    refused([{ annotations: ATTESTATION }], /only what is attached to images$/);
  });
});

describe('a manifest', () => {
  it('has the annotations that are short enough to be shown, and those of a checkpoint always', () => {
    const descriptor = { digest: `sha256:${'0'.repeat(64)}`, size: 1 };
    const many = Array.from({ length: 20 }, (_, index) => [`n${index}`, 'x'.repeat(1_000)]);
    const checkpoint = { 'org.criu.checkpoint.container.name': 'main' };
    const manifest = parseManifest(
      Buffer.from(
        JSON.stringify({
          config: { ...descriptor, mediaType: 'application/vnd.oci.image.config.v1+json' },
          layers: [],
          annotations: {
            version: '1',
            long: 'x'.repeat(1_025),
            number: 1,
            ...Object.fromEntries(many),
            ...checkpoint,
          },
        }),
      ),
      '',
    );
    assert.ok(manifest.kind === 'image');
    const { annotations, checkpointAnnotations } = manifest;
    assert.equal(annotations['version'], '1');
    assert.equal(Object.keys(annotations).length, 9);
    assert.ok(!('long' in annotations) && !('number' in annotations));
    assert.deepEqual(checkpointAnnotations, checkpoint);
  });
});
