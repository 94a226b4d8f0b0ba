import { appendFileSync, readFileSync } from 'node:fs'
import * as v from 'valibot'

/** An operation as gateway shows it. Read here anew, as everything is that the checker rests on. */
export const SeenOperation = v.object({
  id: v.string(),
  type: v.string(),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  input: v.record(v.string(), v.string()),
  output: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ code: v.string(), message: v.string() })),
  createdAt: v.string(),
  completedAt: v.optional(v.string()),
})
export type SeenOperation = v.InferOutput<typeof SeenOperation>

const common = { atMs: v.number(), user: v.string() }
const attempt = { ...common, key: v.string(), attempt: v.number() }

/**
 * What a client did and what it was answered, in its own words. `atMs` is the wall clock of the client's process, which no
 * fault touches. `unknown`: the connection broke, or no answer came in time: the operation may exist or not.
 */
export const Entry = v.variant('kind', [
  v.object({ kind: v.literal('user'), ...common }),
  v.object({
    kind: v.literal('submit'),
    ...attempt,
    type: v.string(),
    input: v.record(v.string(), v.string()),
  }),
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
])
export type Entry = v.InferOutput<typeof Entry>

/** JSON lines in a file, one per entry, written as they happen. */
export interface History {
  add(entry: Entry): void
}

export function openHistory(path: string): History {
  return { add: (entry) => appendFileSync(path, `${JSON.stringify(entry)}\n`) }
}

export function readHistory(path: string): Entry[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => v.parse(Entry, JSON.parse(line)))
}
