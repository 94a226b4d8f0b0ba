import * as v from 'valibot'

/**
 * Where a process kills itself.
 *
 * - `before-publish`: messages are stored and not sent yet. `after-publish`: the broker holds them, and the process has not
 *   noted that.
 * - `handling`: a batch is being handled. `before-offset`: the batch is done, and the group's offset has not moved.
 * - `before-dead-letter`: a message is about to be dead-lettered.
 * - `before-call`: a step is about to ask the provider. `after-call`: the provider did it, and nothing is recorded.
 * - `before-progress`: a step is recorded, and nobody was told. `before-result`: the last step is recorded and told, and
 *   the operation has no result.
 * - `during-undo`: the provider took back what a step did, and nothing is recorded.
 */
export type Point =
  | 'before-publish'
  | 'after-publish'
  | 'handling'
  | 'before-offset'
  | 'before-dead-letter'
  | 'before-call'
  | 'after-call'
  | 'before-progress'
  | 'before-result'
  | 'during-undo'

/** What a process does wrong. The run changes it while the process runs. */
export interface Trouble {
  /** Where the process kills itself. */
  killAt: Point | undefined
  /** Messages are published twice, and delivered again together with some from before. */
  duplicates: boolean
  /** A batch is delivered in another order, though in order per key. */
  otherOrder: boolean
  /** How many of the next requests are read wrongly at the first look. */
  misread: number
}

/** What the run sends to a process, by IPC. */
export interface Order {
  /** How much its wall clock is wrong from now on. */
  readonly shiftMs?: number
  readonly trouble?: Partial<Trouble>
}

/** What a process sends to the run: an operation whose request it read wrongly. */
export const Report = v.object({ misread: v.string() })

/** Kills this process if that is ordered for the point. */
export function dieAt(trouble: Pick<Trouble, 'killAt'>, point: Point): void {
  if (trouble.killAt !== point) return
  // When another process kills it, this one goes on with its work for a moment.
  if (point === 'handling') Bun.spawn(['kill', '-9', String(process.pid)], { stdio: ['ignore', 'ignore', 'ignore'] })
  else process.kill(process.pid, 'SIGKILL')
}
