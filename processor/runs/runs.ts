import { operationTypes } from '@posta/common/operations/catalog.ts'
import { problemCodes } from '@posta/common/service/problem.ts'
import * as v from 'valibot'

const Members = v.record(v.string(), v.unknown())
const Failure = v.object({ code: v.picklist(problemCodes), message: v.string() })

/** Where the broker held a message. Its dead letter's id follows from it. */
const MessagePosition = v.object({ partition: v.number(), offset: v.number(), timestampMs: v.number() })

/** What never changes of a run. */
export const NewRun = v.object({
  /** The operation's id: an operation has one run. */
  id: v.string(),
  user: v.string(),
  type: v.picklist(operationTypes),
  /** Of the performer that began it. */
  version: v.number(),
  /** As they came with the request. */
  input: Members,
  facts: v.optional(Members),
  /** When gateway accepted the operation, RFC 3339. */
  createdAt: v.string(),
  /** When `decide` said to go on, in ms since the epoch. */
  decidedAtMs: v.number(),
  /** What `decide` said. */
  decided: v.unknown(),
  redrive: v.optional(v.string()),
  traceparent: v.optional(v.string()),
  /** Of the request. */
  position: MessagePosition,
})
export type NewRun = v.InferOutput<typeof NewRun>

/**
 * - `ready`: to go on as soon as a processor has room, at `dueAtMs`.
 * - `running`: a processor holds it. It has a holder in this state alone.
 * - `waiting`: until `dueAtMs`, or until an input comes.
 * - `stuck`: a dead letter tells why. An operator can redrive or discard it; at `dueAtMs` it times out.
 * - `ended`: the outcome is stored and published.
 */
export const runStates = ['ready', 'running', 'waiting', 'stuck', 'ended'] as const
export type RunState = (typeof runStates)[number]

/** What finds a run quickly. It follows from the history: an old head costs time and never an effect. */
export const Head = v.object({
  state: v.picklist(runStates),
  holder: v.optional(v.string()),
  /** How often a processor has taken the run. */
  epoch: v.number(),
  dueAtMs: v.number(),
  /** The step, or wait, that it is at. */
  step: v.optional(v.string()),
  /** Whether it waits for an answer, rather than for a time. */
  forSignal: v.optional(v.boolean()),
  /** How often the step under way was attempted, and how many of the last attempts failed one after the other. */
  attempts: v.number(),
  failures: v.number(),
  /** What the last failed attempt said, or why it is stuck. */
  reason: v.optional(v.string()),
  /** `crashes`: how many holders in a row died without adding a record. `crashedAt`: how many records there were then. */
  crashes: v.optional(v.number()),
  crashedAt: v.optional(v.number()),
  /** The messages of all records before this number were published. */
  published: v.number(),
})
export type Head = v.InferOutput<typeof Head>

export interface Run extends NewRun {
  readonly head: Head
}

const at = { n: v.number(), atMs: v.number() }
const named = { ...at, step: v.string() }

/** What happened in a run, in its order. */
export const RunRecord = v.variant('kind', [
  /** The step may have had its effect from here on. Only steps with `undo` or `final` have it. */
  v.object({ ...named, kind: v.literal('started'), final: v.boolean() }),
  /** A step, a wait or a signal has its result; absent, or undefined, if that is nothing. */
  v.object({ ...named, kind: v.literal('done'), result: v.optional(v.unknown()) }),
  v.object({ ...named, kind: v.literal('waiting'), untilMs: v.number(), forSignal: v.boolean() }),
  /** From here on the run is undone. */
  v.object({ ...at, kind: v.literal('failing'), failure: Failure }),
  v.object({ ...named, kind: v.literal('undone') }),
  v.object({ ...at, kind: v.literal('stuck'), reason: v.string() }),
  /** A redrive made it go on. */
  v.object({ ...at, kind: v.literal('resumed') }),
  v.object({
    ...at,
    kind: v.literal('ended'),
    outcome: v.union([
      v.object({ output: Members, lookup: v.optional(v.object({ key: v.string(), order: v.string() })) }),
      v.object({ failure: Failure }),
    ]),
  }),
])
export type RunRecord = v.InferOutput<typeof RunRecord>

/** A record of a run. */
export interface Appended {
  readonly run: string
  readonly record: RunRecord
}

/** How long an operation in steps may take from its acceptance. */
export const LONGEST_LIFE_MS = 30 * 24 * 60 * 60 * 1000

/** When a run times out, in ms since the epoch. */
export const expiresAtMs = ({ createdAt }: Pick<NewRun, 'createdAt'>) => Date.parse(createdAt) + LONGEST_LIFE_MS

/** For `dueAtMs`: only an input makes the run due. */
export const NEVER_MS = Number.MAX_SAFE_INTEGER

export const CANCEL = 'cancel'

/** What came from outside for a run, whether it exists or not. */
export const RunInput = v.object({
  /** The operation's id. */
  run: v.string(),
  /** The operation's owner. What names another is not for the run. */
  user: v.string(),
  /** `cancel`; or `signal:`, `redrive:` or `abandon:` and what it is about. A run has one of each from its user. */
  name: v.string(),
  by: v.string(),
  /** Of a signal. */
  payload: v.optional(Members),
  atMs: v.number(),
})
export type RunInput = v.InferOutput<typeof RunInput>
export type RunInputKey = Pick<RunInput, 'run' | 'user' | 'name'>

export const signalInput = (name: string) => `signal:${name}`
/** @param redrive the redrive's id, which follows from that of the dead letter */
export const redriveInput = (redrive: string) => `redrive:${redrive}`
export const abandonInput = (deadLetter: string) => `abandon:${deadLetter}`

/** Which runs a processor can go on with. */
export interface Kind {
  readonly type: string
  readonly version: number
}

export interface RunFilter {
  readonly user?: string | undefined
  readonly type?: string | undefined
  readonly state?: RunState | undefined
  /** Only runs whose operation was accepted before this time, RFC 3339. */
  readonly createdBefore?: string | undefined
}

/**
 * Keeps runs: what each is, its history, and what came for it from outside.
 *
 * - What `create`, `append`, `addInputs` and `pause` resolved to is durable, and every later read sees it. The first three
 *   only insert, and of several callers that insert the same, one does. Everything that must be true rests on them.
 * - `take`, `put`, `beat`, `forget` and `notice` change what finds runs quickly. They are seen by every later read, but a
 *   power cut may undo the last of them; and of two callers that change one head at once, a store may let both believe that
 *   they did.
 * - Opening never connects. Calls reject within seconds while the store cannot be reached. A write that rejected may have
 *   been done.
 */
export interface Runs {
  /** Stores the runs that do not exist, with their heads. Resolves to the ids of those that it stored. */
  create(runs: readonly Run[]): Promise<ReadonlySet<string>>
  get(id: string): Promise<Run | undefined>
  /** Those of them that exist. */
  getMany(ids: readonly string[]): Promise<readonly Run[]>
  /**
   * Adds each record to the history of its run, unless that has one with this number. Resolves, in the order given, to
   * whether it was added. Records are of different runs.
   */
  append(records: readonly Appended[]): Promise<readonly boolean[]>
  /** In order. */
  history(id: string): Promise<readonly RunRecord[]>
  /**
   * At most `limit` runs that nobody holds and that are due, the longest due first: `ready`, `waiting` or `stuck`, of one of the
   * kinds, and of none of `exceptUsers`. Not the ones of a paused type that no processor has taken yet. Runs of other kinds
   * cost nothing, however many are due.
   */
  due(query: {
    readonly nowMs: number
    readonly kinds: readonly Kind[]
    readonly exceptUsers: readonly string[]
    readonly limit: number
  }): Promise<readonly Run[]>
  /** When the next run of one of the kinds that nobody holds is due after `nowMs`. Undefined if none is. */
  nextDueMs(nowMs: number, kinds: readonly Kind[]): Promise<number | undefined>
  /** Makes `holder` the holder, if the epoch and the holder are still as in `run`. Resolves to the run then. */
  take(run: Run, holder: string): Promise<Run | undefined>
  /** Replaces the head, if the epoch and the holder are still those of `held`. False if not. */
  put(held: Run, head: Head): Promise<boolean>
  /** Every processor that holds a run: the ids of its runs, and its beat; -1 where it has none. */
  holders(): Promise<readonly { readonly holder: string; readonly beat: number; readonly runs: readonly string[] }[]>
  beat(holder: string, beat: number): Promise<void>
  /** Removes the holder's beat. */
  forget(holder: string): Promise<void>
  /** Stores inputs whose run, user and name are new. The others change nothing. */
  addInputs(inputs: readonly RunInput[]): Promise<void>
  /** Of these runs. */
  inputs(runs: readonly string[]): Promise<readonly RunInput[]>
  /** At most `limit` inputs that were not marked as noticed, the oldest first; those that follow `after`, if it is given. */
  unnoticed(limit: number, after?: RunInputKey & Pick<RunInput, 'atMs'>): Promise<readonly RunInput[]>
  notice(inputs: readonly RunInputKey[]): Promise<void>
  /** Whether runs of a type that no processor has taken yet wait. */
  pause(type: string, paused: boolean): Promise<void>
  paused(): Promise<readonly string[]>
  /** The newest first, by the operation's id, which sorts by time. */
  page(
    filter: RunFilter,
    page: { readonly limit: number; readonly before?: string | undefined },
  ): Promise<readonly Run[]>
  /**
   * Deletes ended runs whose operation was accepted before `createdAt`, with all that belongs to them, and inputs that came
   * before it for operations that have no run. Deletes at most `atMost` of these runs and inputs. Resolves to how many: fewer
   * than `atMost` if there are no more.
   */
  deleteBefore(createdAt: string, atMost: number): Promise<number>
}
