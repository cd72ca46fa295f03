// The codecs of a verb with the verb's own types: the table's rows are a union to the compiler.

import {
  type Codec,
  type RequestOf,
  type ResponseOf,
  VERBS,
  type VerbName,
} from '@cribus/contracts/subjects.ts';

/** Encodes and decodes the verb's request. */
export function requestCodec<V extends VerbName>(verb: V): Codec<RequestOf<V>> {
  return VERBS[verb].request as unknown as Codec<RequestOf<V>>;
}

/** Encodes and decodes the verb's answer. */
export function responseCodec<V extends VerbName>(verb: V): Codec<ResponseOf<V>> {
  return VERBS[verb].response as unknown as Codec<ResponseOf<V>>;
}
