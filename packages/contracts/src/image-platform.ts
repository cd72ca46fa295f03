// Platforms of images, in OCI's words: this machine's, one that a handler asks for, and which of
// several images fits best. Pure.

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** As v7; empty where there is none. */
  readonly variant: string;
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  arm: 'arm',
  ia32: '386',
  ppc64: 'ppc64le',
  riscv64: 'riscv64',
  s390x: 's390x',
};

/** What a variant is when none is named (containerd's and Docker's defaults agree on these). */
const STANDARD_LEVELS: Readonly<Record<string, number>> = { arm: 7, arm64: 8, amd64: 1 };

/** This machine's. */
export function hostPlatform(): Platform {
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  return { os: 'linux', architecture, variant: architecture === 'arm' ? 'v7' : '' };
}

/** `linux/arm/v7`. */
export function platformText({ os, architecture, variant }: Platform): string {
  return variant === '' ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** The other way round; what is left out is empty. */
export function parsePlatform(text: string): Platform {
  const [os = '', architecture = '', variant = ''] = text.split('/');
  return { os, architecture, variant };
}

/** The part of the configuration that says which images a handler runs. */
export interface HandlerPlatforms {
  readonly default: string;
  readonly handlers: Readonly<Record<string, { readonly image_platform: string }>>;
}

/** What the images of a handler are for; the default handler where none is named. */
export function platformOfHandler(runtimes: HandlerPlatforms, handler: string): Platform {
  const text = runtimes.handlers[handler || runtimes.default]?.image_platform ?? '';
  return text === '' ? hostPlatform() : parsePlatform(text);
}

/**
 * How well what is offered runs where that is wanted: the same variant is best, then lower ones (arm
 * v7 runs v6 and v5; arm64 is v8; amd64 is v1). Negative when it doesn't run.
 */
export function rankOf(offered: Platform, wanted: Platform): number {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return -1;
  return levelOf(offered) > levelOf(wanted) ? -1 : levelOf(offered);
}

/** As rankOf, for the recorded platform of an image; one that its builder left out is this machine's. */
export function rankOfImage(recorded: string, wanted: Platform): number {
  return rankOf(completed(recorded), wanted);
}

/** True when both are for the same machines, however much of it is spelled out. */
export function isSamePlatform(a: string, b: string): boolean {
  const [one, other] = [completed(a), completed(b)];
  const same = one.os === other.os && one.architecture === other.architecture;
  return same && levelOf(one) === levelOf(other);
}

function completed(recorded: string): Platform {
  const here = hostPlatform();
  const { os, architecture, variant } = parsePlatform(recorded);
  return { os: os || here.os, architecture: architecture || here.architecture, variant };
}

function levelOf({ architecture, variant }: Platform): number {
  const match = /^v([0-9]+)/.exec(variant);
  return match === null ? (STANDARD_LEVELS[architecture] ?? 0) : Number(match[1]);
}
