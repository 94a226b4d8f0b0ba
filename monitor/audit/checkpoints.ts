/** A checkpoint that gateway has signed (common/messages/checkpoint.ts), and its time in ms since the epoch. */
export interface KeptCheckpoint {
  readonly atMs: number
  readonly jwt: string
}

/** Keeps the last checkpoint of each UTC day. It covers the earlier ones of that day, since chains only grow. */
export interface Checkpoints {
  /** Durable when it resolves. Replaces an earlier checkpoint of its day; a later one stays. */
  keep(checkpoint: KeptCheckpoint): Promise<void>
  /** Those before `beforeMs`, the newest first. */
  list(page: { readonly limit: number; readonly beforeMs?: number | undefined }): Promise<KeptCheckpoint[]>
  /** Removes those before `beforeMs`. */
  prune(beforeMs: number): Promise<void>
}

export function dayOf(atMs: number): number {
  return Math.floor(atMs / (24 * 60 * 60 * 1000))
}
