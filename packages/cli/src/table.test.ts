import assert from 'node:assert/strict';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { ago, containerTable, imageTable, podTable } from './cri-tables.ts';
import { age, COLUMNS_MAX, columns, size, table, wrapped } from './table.ts';

describe('tables', () => {
  it('aligns columns and ends lines without blanks', () => {
    assert.deepEqual(
      table(
        ['A', 'LONG'],
        [
          ['wide cell', ''],
          ['x', 'y'],
        ],
      ),
      ['A          LONG', 'wide cell', 'x          y'],
    );
  });

  it('cuts the widest columns to stay within 100', () => {
    const row = ['a'.repeat(90), 'b'.repeat(70), 'c'.repeat(9)];
    const lines = table(['A', 'B', 'C'], [row]);
    assert.ok(
      lines.every((line) => line.length <= COLUMNS_MAX),
      lines.join('\n'),
    );
    assert.match(lines[1] ?? '', /^a+… +b+… +c{9}$/);
  });

  it('sets texts beside each other, broken at blanks within their columns', () => {
    const lines = columns([
      { label: '', cells: ['one', 'other'] },
      { label: 'word', cells: ['word '.repeat(20).trim(), 'short'] },
      { label: 'long', cells: ['x'.repeat(90), 'y'] },
    ]);
    assert.ok(
      lines.every((line) => line.length <= COLUMNS_MAX),
      lines.join('\n'),
    );
    const at = lines[0]?.indexOf('other') ?? 0;
    assert.equal(lines[1]?.indexOf('short'), at);
    assert.match(lines[2] ?? '', /^ +word( word)+$/);
    assert.equal(lines.join('').replaceAll(/[^x]/g, '').length, 90);
  });

  it('breaks long sentences at blanks', () => {
    const lines = wrapped('word '.repeat(45).trim(), '  ');
    assert.equal(lines.length, 3);
    assert.ok(lines.every((line) => line.length <= COLUMNS_MAX));
    assert.ok(lines.slice(1).every((line) => line.startsWith('  word')));
  });

  it('says how long ago something was, and how large it is', () => {
    const second = 1_000_000_000n;
    assert.equal(ago(5n * second, 5n * second), 'just now');
    assert.equal(ago(0n, 61n * second), '1 minute ago');
    assert.equal(ago(0n, 7_300n * second), '2 hours ago');
    assert.deepEqual([59, 60, 7_200, 200_000].map(age), ['59s', '1m', '2h', '2d']);
    assert.deepEqual([0n, 999n, 1_500n, 4_260_000n].map(size), ['0B', '999B', '1.5kB', '4.26MB']);
  });

  it("prints crictl's columns", () => {
    const pod = cri.PodSandbox.fromPartial({
      id: 'p'.repeat(64),
      metadata: { name: 'web', namespace: 'default', uid: 'u' },
      createdAt: 0n,
      runtimeHandler: 'gvisor',
    });
    const container = cri.Container.fromPartial({
      id: 'c'.repeat(64),
      podSandboxId: pod.id,
      metadata: { name: 'main', attempt: 2 },
      image: { image: `sha256:${'a'.repeat(64)}`, userSpecifiedImage: 'registry:5000/web:1' },
      state: cri.ContainerState.CONTAINER_RUNNING,
      createdAt: 0n,
    });
    const now = 120_000_000_000n;
    const [head = '', row = ''] = containerTable([container], [pod], now);
    const columns = 'CONTAINER IMAGE CREATED STATE NAME ATTEMPT POD_ID POD';
    assert.equal(head.replace('POD ID', 'POD_ID').split(/ +/).join(' '), columns);
    assert.match(row, /^c{13} +registry:5000\/.* +2 minutes ago +Running +main +2 +p{13} +web$/);
    const pods = podTable([pod, cri.PodSandbox.fromPartial({ createdAt: 1n, state: 1 })], now);
    assert.match(pods[1] ?? '', /NotReady .*\(default\)$/);
    assert.match(pods[2] ?? '', /^p{13} +2 minutes ago +Ready +web +default +0 +gvisor$/);
  });

  it('splits image names at the tag, not at a port', () => {
    const images = [
      { id: `sha256:${'b'.repeat(64)}`, repoTags: ['localhost:5000/web:1'], size: 1_000n },
      { id: `sha256:${'d'.repeat(64)}`, repoDigests: ['localhost:5000/db@sha256:e'], size: 2n },
    ].map((row) => cri.Image.fromPartial(row));
    assert.deepEqual(
      imageTable(images).map((line) => line.split(/ {2,}/)),
      [
        ['IMAGE', 'TAG', 'IMAGE ID', 'SIZE'],
        ['localhost:5000/db', '<none>', 'd'.repeat(13), '2B'],
        ['localhost:5000/web', '1', 'b'.repeat(13), '1kB'],
      ],
    );
  });
});
