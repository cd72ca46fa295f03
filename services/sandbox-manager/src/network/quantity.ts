// Kubernetes' notation for amounts, as 10M or 1Gi (apimachinery, resource.Quantity).

import { Failure } from '@cribus/contracts/failure.ts';

const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** A whole number, rounded up as Kubernetes does. Raises invalid_argument naming `name`. */
export function parseQuantity(
  text: string,
  limits: { readonly min: number; readonly max: number; readonly name: string },
): number {
  const match = /^\+?(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,3})|([A-Za-z]{0,2}))$/.exec(text);
  const factor = FACTORS[match?.[3] ?? ''];
  if (match === null || factor === undefined) {
    throw new Failure('invalid_argument', `${limits.name} = ${text}: expected a quantity as 10M`);
  }
  const value = Math.ceil(Number(`${match[1]}${match[2] ?? ''}`) * factor);
  if (!(value >= limits.min && value <= limits.max)) {
    throw new Failure(
      'invalid_argument',
      `${limits.name} = ${text}: must be between ${limits.min} and ${limits.max}`,
    );
  }
  return value;
}
