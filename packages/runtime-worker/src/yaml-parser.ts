// YAML of CDI spec files: of version 1.1, which most writers of such files mean (0660 is octal).

import { Failure } from '@cribus/contracts/failure.ts';
import { parse, YAMLError } from 'yaml';

/** One document. Raises invalid_argument with line and column. */
export function parseYamlText(text: string): unknown {
  try {
    return parse(text, { version: '1.1', logLevel: 'error' });
  } catch (error) {
    // An alias that grows beyond all bounds is a ReferenceError.
    if (!(error instanceof YAMLError) && !(error instanceof ReferenceError)) throw error;
    throw new Failure('invalid_argument', `it is no YAML: ${error.message.split('\n')[0]}`);
  }
}
