import type { Run, RunRecord } from './runs.ts'

type Kind<K extends RunRecord['kind']> = Extract<RunRecord, { kind: K }>

/** What is recorded of one step, wait or signal. */
export interface Entry {
  readonly step: string
  readonly started?: Kind<'started'>
  readonly waiting?: Kind<'waiting'>
  readonly done?: Kind<'done'>
}

/** What a history says. */
export interface History {
  /** The number of the next record. */
  readonly next: number
  /** In the order in which they began. */
  readonly entries: readonly Entry[]
  readonly failing: Kind<'failing'> | undefined
  /** Steps that are undone. */
  readonly undone: ReadonlySet<string>
  /** Whether a step without return has started. */
  readonly pastReturn: boolean
  /** Why it is stuck; undefined where it is not, or a redrive came since. */
  readonly stuck: Kind<'stuck'> | undefined
  readonly ended: Kind<'ended'> | undefined
}

/** @param records of one run, from its first, in order */
export function readHistory(records: readonly RunRecord[]): History {
  const entries = new Map<string, Entry>()
  const merge = (step: string, part: Partial<Entry>) => entries.set(step, { ...entries.get(step), step, ...part })
  const undone = new Set<string>()
  let failing: Kind<'failing'> | undefined
  let stuck: Kind<'stuck'> | undefined
  let ended: Kind<'ended'> | undefined
  let pastReturn = false
  for (const record of records) {
    if (record.kind === 'started') {
      merge(record.step, { started: record })
      pastReturn ||= record.final
    }
    if (record.kind === 'waiting') merge(record.step, { waiting: record })
    if (record.kind === 'done') merge(record.step, { done: record })
    if (record.kind === 'undone') undone.add(record.step)
    if (record.kind === 'failing') failing = record
    if (record.kind === 'ended') ended = record
    if (record.kind === 'stuck') stuck = record
    else stuck = undefined
  }
  return {
    next: records.length,
    entries: [...entries.values()],
    failing,
    undone,
    pastReturn,
    stuck,
    ended,
  }
}

/** How long an operation in steps may take from its acceptance, in ms. */
export const LONGEST_LIFE_MS = 30 * 24 * 60 * 60 * 1000

export const expiresAtMs = ({ createdAt }: Pick<Run, 'createdAt'>) => Date.parse(createdAt) + LONGEST_LIFE_MS
