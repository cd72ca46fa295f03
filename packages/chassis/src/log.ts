// JSON lines, by pino. Bound fields: service, request_id, verb, pod, container.

import {
  type DestinationStream,
  destination,
  type Logger as PinoLogger,
  pino,
  stdTimeFunctions,
} from 'pino';

export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Logger;
}

const REDACTED = '[redacted]';
/** By the end of the key, so that identityToken, x-registry-auth and redis_password are covered. */
const SECRET_KEY = /(auth|password|passwd|token|secret|authorization|credentials|seed)$/i;
/** user:password@ in a URL. */
const URL_CREDENTIALS = /(:\/\/)[^\s/@]+@/g;
/** What is nested deeper, or longer, is cut: a log line has a maximum too. */
const DEPTH_MAX = 6;
const ITEMS_MAX = 100;
const TEXT_MAX = 16_384;

/**
 * Logs to stdout, or to `stream`. Values under keys named auth, password, token, secret,
 * authorization (or ending so) are redacted at any depth, as are credentials in URLs.
 */
export function createLogger(options: {
  readonly service: string;
  readonly level: string;
  readonly stream?: DestinationStream;
}): Logger {
  return wrap(
    pino(
      {
        level: options.level,
        base: { service: options.service },
        timestamp: stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
        messageKey: 'message',
        // Ours below knows the depth and the bigints.
        serializers: {},
      },
      options.stream ?? destination({ fd: 1, sync: true }),
    ),
  );
}

/** A child is made at its first line: most of a call's never write one. */
function wrap(root: PinoLogger, bound: object = {}): Logger {
  let made: PinoLogger | undefined;
  const write =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: object, message: string): void => {
      if (!root.isLevelEnabled(level)) return;
      made ??= root.child(clean(bound));
      made[level](clean(fields), scrub(message));
    };
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => wrap(root, { ...bound, ...fields }),
  };
}

function scrub(text: string): string {
  const cut = text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
  return cut.includes('://') ? cut.replaceAll(URL_CREDENTIALS, `$1${REDACTED}@`) : cut;
}

function clean(fields: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields)
      .slice(0, ITEMS_MAX)
      .map(([key, value]) => [key, cleanField(key, value, 1)]),
  );
}

function cleanField(key: string, value: unknown, depth: number): unknown {
  const secret = SECRET_KEY.test(key) && value !== undefined && value !== '';
  return secret ? REDACTED : cleanValue(value, depth);
}

function cleanValue(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return scrub(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'function') return undefined;
  if (typeof value !== 'object' || value === null) return value;
  if (depth > DEPTH_MAX) return '…';
  if (value instanceof Error) return cleanError(value, depth);
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Map) return cleanValue(Object.fromEntries(value), depth);
  if (Array.isArray(value) || value instanceof Set) {
    return [...value].slice(0, ITEMS_MAX).map((item) => cleanValue(item, depth + 1));
  }
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, ITEMS_MAX)
      .map(([key, inner]) => [key, cleanField(key, inner, depth + 1)]),
  );
}

function cleanError(error: Error, depth: number): object {
  return {
    type: error.name,
    text: scrub(error.message),
    ...('code' in error ? { code: String(error.code) } : {}),
    ...(error.stack === undefined ? {} : { stack: scrub(error.stack) }),
    ...(error.cause === undefined ? {} : { cause: cleanValue(error.cause, depth + 1) }),
  };
}
