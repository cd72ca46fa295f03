// The policy hook: a program of the operator that must agree to every image before anything of it is
// fetched. Whatever goes wrong with it is a refusal. docs/image-verification.md is its protocol.

import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { run, type SpawnResult } from '@cribus/host/spawn.ts';

/** What is about to be pulled: a manifest, or a list of them, by the digest that was resolved. */
export interface Candidate {
  /** The full reference, as docker.io/library/busybox:1.36. */
  readonly name: string;
  readonly digest: string;
  readonly mediaType: string;
  readonly sizeBytes: number;
}

/** OCI's name for what is on standard input (image-spec, media-types.md). */
const DESCRIPTOR_TYPE = 'application/vnd.oci.descriptor.v1+json';
/** A reason for people, not a report; containerd's verifiers have the same bound. */
const REASON_BYTES_MAX = 16 * 1024;
const REASON_CHARACTERS_MAX = 1_000;

/**
 * Asks the configured program; returns at once when there is none. Raises kubelet_reason with
 * SignatureValidationFailed (cri-api, ErrSignatureValidationFailed) unless the program agrees, and the
 * reason of `signal` when that aborts.
 */
export type Verifier = (candidate: Candidate, signal: AbortSignal) => Promise<void>;

export function createVerifier(
  service: Pick<Service, 'config' | 'clock' | 'log' | 'metrics'>,
): Verifier {
  const { clock, log } = service;
  const { verifier: command, verifier_timeout_s } = service.config.images;
  const verdicts = service.metrics.counter(
    'cribus_image_verifications_total',
    'Images that the verifier judged, by outcome.',
    ['outcome'],
  );

  for (const outcome of ['agreed', 'refused']) verdicts.inc({ outcome }, 0);

  async function judge(candidate: Candidate, signal: AbortSignal): Promise<string | undefined> {
    const { name, digest, mediaType, sizeBytes } = candidate;
    const deadline = clock.timeout(verifier_timeout_s * 1000);
    const descriptor = JSON.stringify({ mediaType, digest, size: sizeBytes });
    try {
      const result = await withJoinedSignal([signal, deadline], (either) =>
        run({
          command,
          args: ['-name', name, '-digest', digest, '-stdin-media-type', DESCRIPTOR_TYPE],
          stdin: Buffer.from(`${descriptor}\n`),
          outputBytesMax: REASON_BYTES_MAX,
          signal: either,
        }),
      );
      return verdictOf(result);
    } catch (error) {
      signal.throwIfAborted();
      if (deadline.aborted) return `it gave no verdict within ${verifier_timeout_s} s`;
      return `it could not be run: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  return async (candidate, signal) => {
    if (command === '') return;
    const { name, digest } = candidate;
    const startedMs = clock.monotonicMs();
    const refusal = await judge(candidate, signal);
    const ms = Math.round(clock.monotonicMs() - startedMs);
    const fields = { image: name, digest, verifier: command, ms };
    if (refusal === undefined) {
      verdicts.inc({ outcome: 'agreed' });
      log.info(fields, 'The verifier agrees to an image.');
      return;
    }
    verdicts.inc({ outcome: 'refused' });
    log.warn({ ...fields, reason: refusal }, 'The verifier refuses an image.');
    throw new Failure(
      'kubelet_reason',
      `SignatureValidationFailed: pull ${name}: ${command} refuses ${digest}: ${refusal}`,
    );
  };
}

/** Undefined when the program agrees, else why it does not. */
function verdictOf({ exitCode, signal, stdout, stderr }: SpawnResult): string | undefined {
  if (exitCode === 0) return undefined;
  if (exitCode === undefined) return `it was ended by signal ${signal}`;
  const said = [stdout, stderr].map((bytes) => printable(bytes)).find((text) => text !== '');
  return said ?? `it exited with ${exitCode} and said nothing`;
}

/** One line, without what would confuse a terminal. */
function printable(bytes: Buffer): string {
  return bytes
    .toString('utf8')
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
    .slice(0, REASON_CHARACTERS_MAX);
}
