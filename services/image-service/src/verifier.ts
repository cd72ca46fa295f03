// The policy hook: a program of the operator that must agree to every image before anything of it is
// fetched. Whatever goes wrong with it is a refusal. docs/image-verification.md is its protocol.

import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
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
export async function verifyImage(
  service: Pick<Service, 'config' | 'clock' | 'log' | 'metrics'>,
  candidate: Candidate,
  signal: AbortSignal,
): Promise<void> {
  const { verifier, verifier_timeout_s } = service.config.images;
  if (verifier === '') return;
  const { name, digest, mediaType, sizeBytes } = candidate;
  const deadline = service.clock.timeout(verifier_timeout_s * 1000);
  const descriptor = JSON.stringify({ mediaType, digest, size: sizeBytes });
  const startedMs = service.clock.monotonicMs();
  const verdict = await run({
    command: verifier,
    args: ['-name', name, '-digest', digest, '-stdin-media-type', DESCRIPTOR_TYPE],
    stdin: Buffer.from(`${descriptor}\n`),
    outputBytesMax: REASON_BYTES_MAX,
    signal: AbortSignal.any([signal, deadline]),
  }).then(verdictOf, (error: unknown) => {
    signal.throwIfAborted();
    if (deadline.aborted) return `it gave no verdict within ${verifier_timeout_s} s`;
    return `it could not be run: ${error instanceof Error ? error.message : String(error)}`;
  });
  const ms = Math.round(service.clock.monotonicMs() - startedMs);
  const outcome = verdict === undefined ? 'agreed' : 'refused';
  service.metrics
    .counter('cribus_image_verifications_total', 'Images that the verifier judged, by outcome.', [
      'outcome',
    ])
    .inc({ outcome });
  const fields = { image: name, digest, verifier, ms };
  if (verdict === undefined) {
    service.log.info(fields, 'The verifier agrees to an image.');
    return;
  }
  service.log.warn({ ...fields, reason: verdict }, 'The verifier refuses an image.');
  throw new Failure(
    'kubelet_reason',
    `SignatureValidationFailed: pull ${name}: ${verifier} refuses ${digest}: ${verdict}`,
  );
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
