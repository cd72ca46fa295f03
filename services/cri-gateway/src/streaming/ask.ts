// What was asked of a stream before its client connects.

interface AskHead {
  /** Of the CRI call, so that the whole way can be followed. */
  readonly requestId: string;
}

/** Ids are whole. */
export interface CommandAsk extends AskHead {
  readonly kind: 'exec' | 'attach';
  readonly containerId: string;
  readonly handler: string;
  /** Of an exec. */
  readonly cmd: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

export interface ForwardAsk extends AskHead {
  readonly kind: 'port-forward';
  readonly sandboxId: string;
  readonly ports: readonly number[];
}

export type StreamAsk = CommandAsk | ForwardAsk;
