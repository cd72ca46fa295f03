// Signals as records name them: without SIG, as TERM or RTMIN+3.

import { Signal } from './gen/cri/v1/api.ts';

/** Numbers of the signals on x86 and Arm (signal(7)). */
const NUMBERS: Readonly<Record<string, number>> = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  ILL: 4,
  TRAP: 5,
  ABRT: 6,
  BUS: 7,
  FPE: 8,
  KILL: 9,
  USR1: 10,
  SEGV: 11,
  USR2: 12,
  PIPE: 13,
  ALRM: 14,
  TERM: 15,
  STKFLT: 16,
  CHLD: 17,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
  TTIN: 21,
  TTOU: 22,
  URG: 23,
  XCPU: 24,
  XFSZ: 25,
  VTALRM: 26,
  PROF: 27,
  WINCH: 28,
  IO: 29,
  PWR: 30,
  SYS: 31,
};
const ALIASES: Readonly<Record<string, string>> = { CLD: 'CHLD', IOT: 'ABRT', POLL: 'IO' };

/** The range that glibc leaves to programs; the kernel's own starts at 32 (signal(7)). */
const REALTIME_MIN = 34;
const REALTIME_MAX = 64;

/** The number of a signal in any spelling; undefined for anything else. */
export function signalNumber(text: string): number | undefined {
  const name = signalName(text);
  return name === undefined ? undefined : numberOf(name);
}

/** Of a signal as a record spells it. */
function numberOf(name: string): number | undefined {
  const known = NUMBERS[name];
  if (known !== undefined) return known;
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (realtime === null) return undefined;
  const offset = Number(`${realtime[2] ?? '+'}${realtime[3] ?? '0'}`);
  const number = (realtime[1] === 'MIN' ? REALTIME_MIN : REALTIME_MAX) + offset;
  return number >= REALTIME_MIN && number <= REALTIME_MAX ? number : undefined;
}

/** The CRI's value for a signal in any spelling; the default where there is none. */
export function criSignal(text: string): Signal {
  const number = signalNumber(text);
  return (number === undefined ? undefined : CRI_SIGNALS.get(number)) ?? Signal.RUNTIME_DEFAULT;
}

/** As a record spells it; TERM for what is no signal of the CRI. */
export function criSignalName(signal: Signal): string {
  const found = Object.entries(Signal).find(([, value]) => value === signal);
  // The enum spells the signs out: SIGRTMINPLUS3, SIGRTMAXMINUS14.
  const spelled = (found?.[0] ?? 'SIGTERM').replace('PLUS', '+').replace('MINUS', '-');
  return signalName(spelled) ?? 'TERM';
}

/** As a record spells it: SIGTERM, TERM, 15 and SIGRTMIN+3 are TERM, TERM, TERM and RTMIN+3. */
export function signalName(text: string): string | undefined {
  if (/^\d{1,2}$/.test(text)) {
    const number = Number(text);
    const named = Object.entries(NUMBERS).find(([, value]) => value === number);
    if (named !== undefined) return named[0];
    if (number < REALTIME_MIN || number > REALTIME_MAX) return undefined;
    return number === REALTIME_MIN ? 'RTMIN' : `RTMIN+${number - REALTIME_MIN}`;
  }
  const bare = text.toUpperCase().replace(/^SIG/, '');
  const name = ALIASES[bare] ?? bare;
  return numberOf(name) === undefined ? undefined : name;
}

/** The CRI has each number once, the real-time ones from either end of their range. */
const CRI_SIGNALS = new Map(
  Object.values(Signal)
    .filter((signal) => signal !== Signal.RUNTIME_DEFAULT)
    .map((signal) => [numberOf(criSignalName(signal)), signal]),
);
