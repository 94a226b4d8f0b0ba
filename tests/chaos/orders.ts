import * as v from 'valibot'

/**
 * Where a process kills itself. `before-publish`: messages are stored and not sent yet. `after-publish`: the broker
 * holds them, and the process has not noted that. `handling`: a batch is being handled. `before-offset`: the batch is
 * done, and the group's offset has not moved. `before-dead-letter`: a message is about to be dead-lettered.
 */
export type Point = 'before-publish' | 'after-publish' | 'handling' | 'before-offset' | 'before-dead-letter'

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
