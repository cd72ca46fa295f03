// What this process and this host may do at most.

/** Names (`CAP_CHOWN`, …) in this process' own bounding set: "all capabilities" can mean no more. */
export function boundingCapabilities(): string[] {
  throw new Error('not built');
}
/** Lowest oom_score_adj that we may set for a child: our own without CAP_SYS_RESOURCE, else -1000. */
export function oomScoreAdjFloor(): number {
  throw new Error('not built');
}
