import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { Signal } from './gen/cri/v1/api.ts';
import { criSignal, criSignalName, signalName, signalNumber } from './signals.ts';

describe('signals', () => {
  it('of the CRI are each spelled so that they read back', () => {
    for (const [name, value] of Object.entries(Signal)) {
      if (value === Signal.RUNTIME_DEFAULT) continue;
      const spelled = criSignalName(value);
      const number = signalNumber(spelled);
      assert.ok(number !== undefined && number >= 1 && number <= 64, name);
      assert.equal(signalNumber(signalName(spelled) ?? ''), number);
      assert.equal(signalNumber(criSignalName(criSignal(spelled))), number, name);
    }
  });

  it('have the value of the CRI by any spelling, the real-time ones from either end', () => {
    const rows: [string, Signal][] = [
      ['KILL', Signal.SIGKILL],
      ['SIGTERM', Signal.SIGTERM],
      ['sigrtmin+3', Signal.SIGRTMINPLUS3],
      ['RTMAX-14', Signal.SIGRTMAXMINUS14],
      ['SIGRTMIN+20', Signal.SIGRTMAXMINUS10],
      ['50', Signal.SIGRTMAXMINUS14],
      ['60', Signal.SIGRTMAXMINUS4],
      ['SIGRTMAX-20', Signal.SIGRTMINPLUS10],
      ['64', Signal.SIGRTMAX],
      ['', Signal.RUNTIME_DEFAULT],
      ['NONSENSE', Signal.RUNTIME_DEFAULT],
      ['65', Signal.RUNTIME_DEFAULT],
      ['RTMIN+31', Signal.RUNTIME_DEFAULT],
    ];
    for (const [text, signal] of rows) assert.equal(criSignal(text), signal, text);
  });
});
