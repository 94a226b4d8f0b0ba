import type { RunRecord } from './runs.ts'

type RecordOf<K extends RunRecord['kind']> = Extract<RunRecord, { kind: K }>

/** What is recorded of one step, wait or signal. */
export interface Entry {
  readonly step: string
  readonly started?: RecordOf<'started'>
  readonly waiting?: RecordOf<'waiting'>
  readonly done?: RecordOf<'done'>
}

/** What a history says. */
export interface History {
  /** In the order in which they began. */
  readonly entries: readonly Entry[]
  readonly failing: RecordOf<'failing'> | undefined
  /** Steps that are undone. */
  readonly undone: ReadonlySet<string>
  /** Whether a `final` step has started. */
  readonly pastReturn: boolean
  /** Why it is stuck; undefined where it is not, or a redrive came since. */
  readonly stuck: RecordOf<'stuck'> | undefined
  readonly ended: RecordOf<'ended'> | undefined
}

/** @param records of one run, from its first, in order */
export function readHistory(records: readonly RunRecord[]): History {
  const entries = new Map<string, Entry>()
  const merge = (step: string, part: Partial<Entry>) => entries.set(step, { ...entries.get(step), step, ...part })
  const undone = new Set<string>()
  let failing: RecordOf<'failing'> | undefined
  let stuck: RecordOf<'stuck'> | undefined
  let ended: RecordOf<'ended'> | undefined
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
    entries: [...entries.values()],
    failing,
    undone,
    pastReturn,
    stuck,
    ended,
  }
}
