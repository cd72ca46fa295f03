// What a client opened, whichever protocol it speaks: streams of bytes over one connection, with
// back-pressure both ways.

/** Where the bytes of a stream go. */
export interface Receiver {
  data(chunk: Buffer): void;
  /** Nothing more comes: the client closed its half, or is gone. */
  end(): void;
  /** The client gave up both directions, maybe after the end of its own. Absent: as `end`. */
  readonly reset?: (() => void) | undefined;
}

/** One stream of a client; either direction may stay unused. */
export interface ClientStream {
  /** False: the client's socket is full; the connection says when it has drained. */
  write(chunk: Buffer): boolean;
  /** Nothing more is written; the client may still send. */
  end(): void;
  /** Ends both directions at once: something went wrong. */
  reset(): void;
  /** Once; what came before is handed over then. */
  receive(receiver: Receiver): void;
  /** Holds the input back; while much of it waits, the whole connection is not read. */
  pause(): void;
  resume(): void;
}

export interface ClientConnection {
  /** Aborts when the connection is gone, whoever closed it. */
  readonly closed: AbortSignal;
  /** Calls when the socket has taken what was written; answers how to stop that. */
  onDrain(listener: () => void): () => void;
  /** Whether anything that was written is still kept on this side: its memory is in use then. */
  isHolding(): boolean;
  /** Says goodbye: closes once what was written is out. Further input is thrown away. */
  close(): void;
}

/** The streams of an exec or attach. Those that were not asked for are absent. */
export interface CommandClient {
  readonly connection: ClientConnection;
  readonly protocol: string;
  readonly stdin?: ClientStream | undefined;
  readonly stdout?: ClientStream | undefined;
  readonly stderr?: ClientStream | undefined;
  readonly resize?: ClientStream | undefined;
  /** Takes how it ended: as a metav1.Status from v4 on, before as text and only of a failure. */
  readonly error: ClientStream;
  readonly statusForm: 'json' | 'text';
}

/** One forwarded connection: its bytes, and a stream that takes what went wrong. */
export interface ForwardPair {
  readonly port: number;
  readonly data: ClientStream;
  readonly error: ClientStream;
  /** Whether the client can end one direction of the data alone. */
  readonly halfCloses: boolean;
}
