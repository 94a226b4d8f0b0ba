/** A checkpoint that gateway has signed (common/messages/checkpoint.ts), and its time. */
export interface KeptCheckpoint {
  readonly atMs: number
  readonly jwt: string
}

/** Keeps the last checkpoint of each UTC day: it stands for those of the day before it, since chains only grow. */
export interface Checkpoints {
  /** Durable when it resolves. It goes into the place of an earlier one of its day, never into that of a later one. */
  keep(checkpoint: KeptCheckpoint): Promise<void>
  /** The newest first, of those before `beforeMs`. */
  list(page: { readonly limit: number; readonly beforeMs?: number | undefined }): Promise<KeptCheckpoint[]>
  /** Removes those before `beforeMs`. */
  prune(beforeMs: number): Promise<void>
}

export function dayOf(atMs: number): number {
  return Math.floor(atMs / (24 * 60 * 60 * 1000))
}
