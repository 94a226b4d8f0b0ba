import type { Deps } from '@posta/common/service/deps.ts'
import { decodeCursor, encodeCursor } from '@posta/common/service/pages.ts'
import * as v from 'valibot'
import type { DeadLetterFilter, DeadLetterSummary, DeadLetters, StoredDeadLetter } from './dead-letters.ts'
import type { Choice, Decisions, Outcome } from './decisions.ts'

export interface Asked {
  readonly filter: Omit<DeadLetterFilter, 'status' | 'redrivable'>
  readonly by: string
  readonly choice: Choice
  /** `next` of the answer before. */
  readonly cursor?: string | undefined
}

export interface Preview {
  /** How many there are, up to `MAX_COUNT`. */
  readonly count: number
  readonly orMore: boolean
  /** The first of them. */
  readonly ids: string[]
}

export interface Done {
  readonly done: number
  readonly already: number
  readonly refused: { readonly id: string; readonly detail: string }[]
  readonly next?: string
}

const MAX_AT_ONCE = 100
const MAX_COUNT = 10_000
/** Their bytes are in memory together: a message has up to 1 MiB. */
const MAX_PUBLISHED_AT_ONCE = 20

/** From where to go on, and the time of the first call: what was set aside after it is none of these. */
const Cursor = v.object({ receivedAtMs: v.number(), id: v.string(), untilMs: v.number() })

/**
 * Decides about all open dead letters that fit a filter, the oldest first, so many a call. What is redriven may fail and
 * be set aside again: that is not met again by the calls that go on where the first one ended.
 */
export function createDecideMany(parts: {
  deadLetters: Pick<DeadLetters, 'oldest' | 'count' | 'find'>
  decisions: Pick<Decisions, 'decideAll'>
  deps: Pick<Deps, 'now'>
}) {
  const { deadLetters, decisions, deps } = parts

  function select({ filter, choice, cursor }: Pick<Asked, 'filter' | 'choice' | 'cursor'>) {
    const after = decodeCursor(Cursor, cursor)
    const untilMs = after?.untilMs ?? Math.min(filter.untilMs ?? Number.MAX_SAFE_INTEGER, deps.now() + 1)
    const redrivable = choice.to === 'redriven' ? true : undefined
    return { after, selected: { ...filter, status: 'open', redrivable, untilMs } as const }
  }

  return {
    /** What `decide` would meet. @throws Problem `malformed-request` for a cursor that is none. */
    async preview(asked: Pick<Asked, 'filter' | 'choice' | 'cursor'>): Promise<Preview> {
      const { after, selected } = select(asked)
      const found = await deadLetters.oldest(selected, { limit: MAX_AT_ONCE, after })
      const count = await deadLetters.count(selected, { atMost: MAX_COUNT + 1, after })
      return { count: Math.min(count, MAX_COUNT), orMore: count > MAX_COUNT, ids: found.map(({ id }) => id) }
    },

    /** @throws Problem `malformed-request` for a cursor that is none; `overloaded` as `Decisions.decide`. */
    async decide(asked: Asked): Promise<Done> {
      const { after, selected } = select(asked)
      const found = await deadLetters.oldest(selected, { limit: MAX_AT_ONCE + 1, after })
      const page = found.slice(0, MAX_AT_ONCE)
      const outcomes: Outcome[] = []
      const ordered = page.toSorted(byPlace)
      for (let start = 0; start < ordered.length; start += MAX_PUBLISHED_AT_ONCE) {
        const ids = ordered.slice(start, start + MAX_PUBLISHED_AT_ONCE).map(({ id }) => id)
        const stored = await deadLetters.find(ids)
        const letters = ids.flatMap((id): StoredDeadLetter[] => {
          const letter = stored.get(id)
          return letter ? [letter] : []
        })
        outcomes.push(...(await decisions.decideAll(letters, asked.by, asked.choice)))
      }
      const last = page.at(-1)
      const more = found.length > page.length && last !== undefined
      return {
        done: outcomes.filter(({ result }) => result === 'done').length,
        already: outcomes.filter(({ result }) => result === 'already').length,
        refused: outcomes.flatMap((outcome) =>
          outcome.result === 'refused' ? [{ id: outcome.deadLetter.id, detail: outcome.detail }] : [],
        ),
        ...(more && {
          next: encodeCursor({ receivedAtMs: last.receivedAtMs, id: last.id, untilMs: selected.untilMs }),
        }),
      }
    },
  }
}

/** Ids do not sort by offset: among those that were received together the messages of one key keep their order. */
function byPlace(a: DeadLetterSummary, b: DeadLetterSummary): number {
  return a.receivedAtMs - b.receivedAtMs || a.timestampMs - b.timestampMs || a.offset - b.offset
}
