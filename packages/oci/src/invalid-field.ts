// How a request that is wrong regardless of state is refused: with the object, the field and the
// why.

import { Failure } from '@cribus/contracts/failure.ts';

/** Makes the invalid_argument failure of a named field; the object is bound once per build. */
export type Invalid = (field: string, why: string) => Failure;

/** Failures of one object, as in `container "web": working_dir: "data" is not an absolute path`. */
export function invalidOf(object: string): Invalid {
  return (field, why) => new Failure('invalid_argument', `${object}: ${field}: ${why}`);
}

/** A value as it is quoted in a message, cut where a hostile one would fill the log. */
export function quoted(value: string): string {
  const most = 200;
  return JSON.stringify(value.length > most ? `${value.slice(0, most)}…` : value);
}
