import type { messages } from '@posta/common/messages/events.ts'
import type { Clock } from '@posta/common/service/clock.ts'
import { described } from '@posta/common/service/query.ts'
import * as v from 'valibot'
import type { Events, MinuteCount, Minutes } from './events.ts'
import { minuteOf } from './record.ts'

const Counts = v.record(v.string(), v.number())

export const Stats = v.object({
  from: v.string(),
  until: v.string(),
  types: described(Counts, 'Events by type.'),
  logins: v.number(),
  failedLogins: v.number(),
  failedOperations: v.number(),
  latency: described(
    v.object({ operations: v.number(), averageMs: v.number(), maxMs: v.number() }),
    'From the acceptance of an operation to its outcome.',
  ),
  minutes: described(
    v.array(v.object({ minute: v.string(), types: Counts })),
    'Events by type in each minute that has any, newest first.',
  ),
})
export type Stats = v.InferOutput<typeof Stats>

const MINUTES = 60
/** The newest minutes are counted at every call, since their events are still coming. */
const OPEN_MINUTES = 3

interface Counted {
  readonly minutes: readonly MinuteCount[]
  readonly totalMs: number
  readonly longestMs: number
}

/**
 * What happened in the last hour, by the time of the events. The stored events are counted, and no counter is kept beside
 * them: so no crash can make the two differ. All but the newest minutes are counted once a minute at most.
 */
export function createStats(events: Pick<Events, 'countByMinute' | 'durations'>, deps: Pick<Clock, 'now'>) {
  let earlier: { readonly first: number; readonly counted: Promise<Counted> } | undefined

  async function count(minutes: Minutes): Promise<Counted> {
    const [counts, durations] = await Promise.all([events.countByMinute(minutes), events.durations(minutes)])
    return { minutes: counts, ...durations }
  }

  /** All calls in one minute share the counts. A failure is not kept: the next call counts again. */
  function countEarlier(minutes: Minutes): Promise<Counted> {
    if (earlier?.first !== minutes.first) {
      earlier = { first: minutes.first, counted: count(minutes) }
      earlier.counted.catch(() => {
        earlier = undefined
      })
    }
    return earlier.counted
  }

  return async (): Promise<Stats> => {
    const last = minuteOf(deps.now())
    const first = last - MINUTES + 1
    const open = last - OPEN_MINUTES + 1
    const counted = await Promise.all([countEarlier({ first, last: open - 1 }), count({ first: open, last })])
    return toStats({ first, last }, counted)
  }
}

function toStats({ first, last }: Minutes, counted: readonly Counted[]): Stats {
  const counts = counted.flatMap(({ minutes }) => minutes)
  const types = sum(counts)
  const of = (type: keyof typeof messages) => types[type] ?? 0
  const operations = of('posta.operation.succeeded') + of('posta.operation.failed')
  const totalMs = counted.reduce((total, each) => total + each.totalMs, 0)
  return {
    from: timeOf(first),
    until: timeOf(last + 1),
    types,
    logins: of('posta.user.logged-in'),
    failedLogins: of('posta.user.login-failed'),
    failedOperations: of('posta.operation.failed'),
    latency: {
      operations,
      averageMs: operations > 0 ? Math.round(totalMs / operations) : 0,
      maxMs: Math.max(...counted.map(({ longestMs }) => longestMs)),
    },
    minutes: [...Map.groupBy(counts, ({ minute }) => minute)]
      .toSorted(([a], [b]) => b - a)
      .map(([minute, ofMinute]) => ({ minute: timeOf(minute), types: sum(ofMinute) })),
  }
}

function sum(counts: readonly MinuteCount[]): { [type: string]: number } {
  const sums: { [type: string]: number } = {}
  for (const { type, count } of counts) sums[type] = (sums[type] ?? 0) + count
  return sums
}

const timeOf = (minute: number) => new Date(minute * 60_000).toISOString()
