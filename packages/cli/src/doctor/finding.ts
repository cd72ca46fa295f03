// What `cribus doctor` has to say of one thing.

export type Level = 'ok' | 'warning' | 'problem';

export interface Finding {
  /** What was looked at, in a word or two. */
  readonly about: string;
  readonly level: Level;
  /** What is there. */
  readonly text: string;
  /** What a person can do; absent where nothing needs doing. */
  readonly advice?: string;
}

export function ok(about: string, text: string): Finding {
  return { about, level: 'ok', text };
}

export function warning(about: string, text: string, advice: string): Finding {
  return { about, level: 'warning', text, advice };
}

export function problem(about: string, text: string, advice: string): Finding {
  return { about, level: 'problem', text, advice };
}
