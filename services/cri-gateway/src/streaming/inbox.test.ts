import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { createInbox, createThrottle } from './inbox.ts';

const TOO_MUCH = Buffer.alloc(129 * 1024, 'x');

describe('an inbox', () => {
  /** What a receiver was told, and whether the connection is read. */
  function watched(takesResets: boolean) {
    const told: string[] = [];
    const inbox = createInbox(
      createThrottle({ pause: () => told.push('pause'), resume: () => told.push('resume') }),
    );
    const receiver = {
      data: (chunk: Buffer) => void told.push(chunk.subarray(0, 1).toString()),
      end: () => void told.push('end'),
      reset: takesResets ? () => void told.push('reset') : undefined,
    };
    return { told, inbox, receive: () => inbox.receive(receiver) };
  }

  it('throws away what waits at a reset, tells it also to a receiver that is held back, and reads on', () => {
    const { told, inbox, receive } = watched(true);
    receive();
    inbox.push(Buffer.from('a'));
    inbox.pause();
    inbox.push(TOO_MUCH);
    inbox.reset();
    inbox.push(Buffer.from('b'));
    inbox.resume();
    assert.deepEqual(told, ['a', 'pause', 'resume', 'reset']);
  });

  it('tells of a reset that comes before the receiver, or after the end', () => {
    const early = watched(true);
    early.inbox.push(TOO_MUCH);
    early.inbox.reset();
    early.receive();
    assert.deepEqual(early.told, ['pause', 'resume', 'reset']);
    const late = watched(true);
    late.receive();
    late.inbox.finish();
    late.inbox.reset();
    assert.deepEqual(late.told, ['end', 'reset']);
  });

  it('ends once, after what waits, for a receiver that takes no resets', () => {
    const { told, inbox, receive } = watched(false);
    inbox.push(Buffer.from('a'));
    inbox.reset();
    receive();
    inbox.reset();
    inbox.finish();
    assert.deepEqual(told, ['a', 'end']);
  });
});
