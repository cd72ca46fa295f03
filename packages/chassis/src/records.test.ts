// Records on disk: revisions that only grow, order, corruption set aside.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isFailure } from '@cribus/contracts/failure.ts';
import { ImageRecord, type ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { createRecordStore } from './records.ts';
import type { Service } from './service.ts';
import { createTestLog } from './testing/fake-service.ts';

describe('records', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'chassis-records-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  function open(epoch: bigint, format = 1) {
    const published: ObjectReport[] = [];
    const mirrored: ObjectReport[] = [];
    const service = {
      log: createTestLog().log,
      bus: { publish: (_kind: string, report: ObjectReport) => void published.push(report) },
      mirror: { report: (report: ObjectReport) => void mirrored.push(report) },
    } as unknown as Service;
    const store = createRecordStore<ImageRecord>({
      service,
      owner: IMAGE_SERVICE,
      epoch,
      kind: 'image',
      codec: ImageRecord,
      format,
      fileOf: (id) => join(directory, id, 'record.pb'),
      listIds: () => listDirectory(directory),
    });
    return { store, published, mirrored };
  }
  const image = (id: string, pulledAtNs = 1n) => ImageRecord.fromPartial({ id, pulledAtNs });

  it('gives every change of an id a greater version, also after removal and restart', async () => {
    const first = open(1n);
    await first.store.put(image('a'));
    await first.store.remove('a');
    await first.store.put(image('a'), { durable: true });
    await Promise.all([first.store.put(image('a')), first.store.put(image('a'))]);
    const second = open(2n);
    await second.store.load();
    await second.store.put(image('a'));
    await second.store.remove('absent');
    const versions = [...first.published, ...second.published].map((report) => report.version);
    assert.deepEqual(
      versions.map((version) => [version?.epoch, version?.revision]),
      [1n, 2n, 3n, 4n, 5n].map((revision) => [1n, revision]).concat([[2n, 6n]]),
    );
    assert.deepEqual(
      first.published.map((report) => report.sequence),
      [1n, 2n, 3n, 4n, 5n],
    );
    assert.deepEqual(first.mirrored, first.published);
  });

  it('lists the oldest first, before and after a restart', async () => {
    const { store } = open(1n);
    await store.put(image('new', 30n));
    await store.put(image('old', 10n));
    await store.put(image('mid', 20n));
    const ids = ['old', 'mid', 'new'];
    assert.deepEqual(
      store.all().map((record) => record.id),
      ids,
    );
    const again = open(2n).store;
    await again.load();
    assert.deepEqual(
      again.reports().map((report) => report.id),
      ids,
    );
    assert.equal(again.get('old')?.version?.epoch, 1n);
  });

  it('sets aside what can not be read, names what is missing, refuses what is much newer', async () => {
    const { store } = open(1n, 3);
    await store.put(image('good'));
    for (const id of ['broken', 'missing', 'foreign']) await mkdir(join(directory, id));
    await writeFile(join(directory, 'broken', 'record.pb'), Buffer.from([0xff, 0xff, 0xff]));
    const foreign = ImageRecord.encode({ ...image('other'), format: 1 }).finish();
    await writeFile(join(directory, 'foreign', 'record.pb'), foreign);
    const again = open(2n, 3).store;
    const loaded = await again.load();
    assert.deepEqual([...loaded.corrupt].sort(), ['broken', 'foreign']);
    assert.deepEqual(loaded.missing, ['missing']);
    assert.deepEqual(await readdir(join(directory, 'broken')), ['record.pb.corrupt']);
    await assert.rejects(open(3n, 1).store.load(), (error) => isFailure(error, 'wrong_state'));
  });

  it('reads what the next version wrote, and writes it as this version does', async () => {
    await open(1n, 2).store.put(image('a'));
    const { store } = open(2n, 1);
    assert.deepEqual(await store.load(), { records: store.all(), corrupt: [], missing: [] });
    assert.equal(store.get('a')?.format, 2);
    await store.put(store.get('a') ?? assert.fail());
    assert.equal(store.get('a')?.format, 1);
  });
});
