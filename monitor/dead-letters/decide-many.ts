import type { Deps } from '@posta/common/service/deps.ts'
import { decodeCursor, encodeCursor } from '@posta/common/service/pages.ts'
import * as v from 'valibot'
import type { Choice, DeadLetterFilter, DeadLetterSummary, DeadLetters } from './dead-letters.ts'
import type { Decisions, Outcome } from './decisions.ts'

interface Asked {
  readonly filter: Omit<DeadLetterFilter, 'status' | 'redrivable'>
  readonly by: string
  readonly choice: Choice
  /** `next` of the answer before. */
  readonly cursor?: string | undefined
  /** Changes nothing, and counts what would be decided. */
  readonly dryRun: boolean
}

const MAX_AT_ONCE = 100
const MAX_COUNT = 10_000
/** Their bytes are in memory together: a message has up to 1 MiB. */
const MAX_PUBLISHED_AT_ONCE = 20

/** Where to go on, and the time of the first call: what was set aside after it is not selected. */
const Cursor = v.object({ receivedAtMs: v.number(), id: v.string(), untilMs: v.number() })

/**
 * Decides about all open dead letters that a filter selects, the oldest first, up to 100 a call. A message that fails again
 * after its redrive becomes a new dead letter; the calls that go on with a cursor do not select it.
 * @throws Problem `malformed-request` for a cursor that it did not give; `overloaded`, as `Decisions.decide`
 */
export function createDecideMany(options: {
  deadLetters: Pick<DeadLetters, 'oldest' | 'count'>
  decisions: Pick<Decisions, 'decideAll'>
  deps: Pick<Deps, 'now'>
}) {
  const { deadLetters, decisions, deps } = options

  return async ({ filter, by, choice, cursor, dryRun }: Asked) => {
    const after = decodeCursor(Cursor, cursor)
    const untilMs = after?.untilMs ?? Math.min(filter.untilMs ?? Number.MAX_SAFE_INTEGER, deps.now() + 1)
    const redrivable = choice.to === 'redriven' ? true : undefined
    const selected = { ...filter, status: 'open', redrivable, untilMs } as const
    const found = await deadLetters.oldest(selected, { limit: MAX_AT_ONCE + 1, after })
    const page = found.slice(0, MAX_AT_ONCE)
    if (dryRun) {
      const count = await deadLetters.count(selected, { atMost: MAX_COUNT + 1, after })
      return { dryRun, count: Math.min(count, MAX_COUNT), orMore: count > MAX_COUNT, ids: page.map(({ id }) => id) }
    }
    const outcomes: Outcome[] = []
    const ids = page.toSorted(byOffset).map(({ id }) => id)
    for (let start = 0; start < ids.length; start += MAX_PUBLISHED_AT_ONCE)
      outcomes.push(...(await decisions.decideAll(ids.slice(start, start + MAX_PUBLISHED_AT_ONCE), by, choice)))
    const last = found.length > page.length ? page.at(-1) : undefined
    return {
      dryRun,
      done: outcomes.filter(({ result }) => result === 'done').length,
      already: outcomes.filter(({ result }) => result === 'already').length,
      refusals: outcomes.flatMap((outcome) =>
        outcome.result === 'refused' ? [{ id: outcome.deadLetter.id, detail: outcome.detail }] : [],
      ),
      ...(last && { next: encodeCursor({ receivedAtMs: last.receivedAtMs, id: last.id, untilMs }) }),
    }
  }
}

/** Ids do not sort by offset: of those that were received together, the messages of one key keep their order. */
function byOffset(a: DeadLetterSummary, b: DeadLetterSummary): number {
  return a.receivedAtMs - b.receivedAtMs || a.timestampMs - b.timestampMs || a.offset - b.offset
}
