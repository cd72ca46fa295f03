// The verbose half of a status, which only the object's owner knows.

import { isFailure } from '@cribus/contracts/failure.ts';
import type { OwnerName } from '@cribus/contracts/subjects.ts';
import type { Call } from '../gateway.ts';

/**
 * What the owner tells of the object; where it is away, a note that says so, because the status
 * itself is known. Raises whatever else the owner raises.
 */
export async function verboseInfo(
  call: Call,
  id: string,
  owner: OwnerName,
): Promise<{ [key: string]: string }> {
  try {
    return (await call.ask('describe', { id }, { owner })).info;
  } catch (error) {
    // A caller whose own deadline passed gets that; an owner that took too long counts as away.
    const away = isFailure(error, 'unavailable', 'timeout') && !call.signal.aborted;
    if (!away) throw error;
    return { note: JSON.stringify(error.message) };
  }
}
