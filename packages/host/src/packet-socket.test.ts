// A connection of packets whose other side is a socket of this process.

import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { unixAddress } from './descriptor-inbox.ts';
import { checked, libc } from './libc.ts';
import { connectPackets, type PacketSocket } from './packet-socket.ts';

/** AF_UNIX, SOCK_SEQPACKET with CLOEXEC and NONBLOCK. */
const SOCKET = [1, 0o2004005] as const;
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('a connection of packets', () => {
  let directory: string;
  let listener: number;
  let packets: PacketSocket;
  let other: number;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-packets-'));
    const path = join(directory, 'attach');
    const address = unixAddress(path);
    listener = checked(libc().socket(...SOCKET, 0), 'socket', path);
    checked(libc().bind(listener, address, address.length), 'bind', path);
    checked(libc().listen(listener, 1), 'listen', path);
    packets = connectPackets(path, () => undefined);
    other = checked(libc().accept4(listener, null, null, SOCKET[1] & ~7), 'accept4', path);
  });
  afterEach(() => {
    packets.close();
    closeSync(listener);
    rmSync(directory, { recursive: true });
  });

  /** What the stream passed on, then what it did not, once it is over. */
  const received = () =>
    new Promise<string[]>((resolve) => {
      const passed: Buffer[] = [];
      packets.stream.on('data', (packet: Buffer) => passed.push(packet));
      let over = false;
      const end = () => {
        if (over) return;
        over = true;
        resolve([...passed, ...packets.readRest()].map(String));
      };
      for (const event of ['end', 'error', 'close']) packets.stream.on(event, end);
    });
  const say = (...words: readonly string[]) => {
    for (const word of words) writeSync(other, word);
  };

  it('has each packet, also those after which the other side closed at once', async () => {
    const all = received();
    packets.send(Buffer.from('hello'));
    const heard = Buffer.alloc(100);
    await turn();
    assert.equal(heard.toString('utf8', 0, readSync(other, heard)), 'hello');
    say('one', 'two', 'three');
    closeSync(other);
    assert.deepEqual(await all, ['one', 'two', 'three']);
  });

  it('has each packet where the other side closed without having read all', async () => {
    const all = received();
    packets.send(Buffer.from('unread'));
    await turn();
    say('one', 'two', 'three');
    closeSync(other);
    assert.deepEqual(await all, ['one', 'two', 'three']);
  });

  it('has each packet, one by one, where that happens while the stream is paused', async () => {
    const all = received();
    packets.send(Buffer.from('unread'));
    await turn();
    packets.stream.pause();
    say('one', 'two', 'three');
    for (let turns = 0; turns < 10; turns += 1) await turn();
    say('four');
    closeSync(other);
    // Told by a write, as nobody reads.
    packets.send(Buffer.from('more'));
    assert.deepEqual(await all, ['one', 'two', 'three', 'four']);
  });
});
