import { appendFileSync, readFileSync } from 'node:fs'
import * as v from 'valibot'

/** An operation as gateway shows it. The checker relies on no schema of the services, so it is written here again. */
export const SeenOperation = v.object({
  id: v.string(),
  type: v.string(),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  input: v.record(v.string(), v.string()),
  output: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ code: v.string(), message: v.string() })),
  progress: v.optional(v.array(v.object({ step: v.string(), status: v.string(), at: v.string() }))),
  createdAt: v.string(),
  completedAt: v.optional(v.string()),
})
export type SeenOperation = v.InferOutput<typeof SeenOperation>

const common = { atMs: v.number(), user: v.string() }
const attempt = { ...common, key: v.string(), attempt: v.number() }

const Told = v.picklist(['cancel', 'approve'])

/**
 * What a client or an operator did, or what it was answered. `atMs` is the wall clock of the clients' process, which no fault touches.
 * `unknown`: the connection broke, or no answer came in time, so that the operation may exist or not.
 */
export const Entry = v.variant('kind', [
  v.object({ kind: v.literal('user'), ...common }),
  v.object({ kind: v.literal('submit'), ...attempt, type: v.string(), input: v.record(v.string(), v.string()) }),
  v.object({
    kind: v.literal('answer'),
    ...attempt,
    status: v.number(),
    code: v.optional(v.string()),
    operation: v.optional(SeenOperation),
  }),
  v.object({ kind: v.literal('unknown'), ...attempt, reason: v.string() }),
  v.object({
    kind: v.literal('seen'),
    ...common,
    id: v.string(),
    how: v.picklist(['get', 'stream', 'last']),
    status: v.number(),
    operation: v.optional(SeenOperation),
  }),
  /** The user is an operator. */
  v.object({ kind: v.literal('operator'), ...common }),
  /** Sent to gateway: `id` is the operation's. `told` is the answer to it; its status is 0 where none came. */
  v.object({ kind: v.literal('tell'), ...common, id: v.string(), what: Told, approved: v.optional(v.boolean()) }),
  v.object({
    kind: v.literal('told'),
    ...common,
    id: v.string(),
    what: Told,
    status: v.number(),
    code: v.optional(v.string()),
  }),
  /** An operator asked monitor to discard the dead letter of the operation's run. */
  v.object({ kind: v.literal('discard'), ...common, id: v.string(), deadLetter: v.string() }),
])
export type Entry = v.InferOutput<typeof Entry>

type WithoutTime<Each> = Each extends unknown ? Omit<Each, 'atMs'> : never

/** Notes an entry with the present time. */
export type Note = (entry: WithoutTime<Entry>) => void

/** Notes entries in a file of JSON lines, each as soon as it happens. */
export function openHistory(path: string): Note {
  return (entry) => appendFileSync(path, `${JSON.stringify({ ...entry, atMs: Date.now() })}\n`)
}

export function readHistory(path: string): Entry[] {
  const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean)
  return lines.map((line) => v.parse(Entry, JSON.parse(line)))
}
