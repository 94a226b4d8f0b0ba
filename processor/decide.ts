import type { Verdict } from '@posta/common/consumer/handler.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { type Catalog, catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Performer } from '@posta/common/operations/contract.ts'
import { OPERATION_RETENTION_MS } from '@posta/common/operations/retention.ts'
import { inputFaults, problems } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { Performers } from './performers/performers.ts'
import { type Request, reply } from './request.ts'
import type { Result, ResultSummary, UserDay } from './results/results.ts'

/** All that a decision rests on. */
export interface Known {
  readonly performers: Performers
  readonly dailyLimitUsdE8: number
  /** The results that exist of the operations asked for, by id. */
  readonly stored: ReadonlyMap<string, ResultSummary>
  /** What counts, before these requests, against the limit of each user and day, by `userDayKey`, in 1e-8 USD. */
  readonly countedUsdE8: ReadonlyMap<string, number>
  readonly completedAt: string
}

/** What is to be stored: first results, or a success in the place of a failure by dead letter. */
export type Effect = { readonly append: readonly Result[] } | { readonly replace: Result }

export interface Decision {
  /** One per request. */
  readonly verdicts: readonly Verdict[]
  /** In the order of the requests. */
  readonly effects: readonly Effect[]
  /** To publish once the effects are stored. */
  readonly replies: readonly Outgoing[]
}

export function userDayKey({ user, day }: UserDay): string {
  return `${day} ${user}`
}

/** Whether a request is performed or, since there is a result, only answered: a redrive tries a dead letter once more. */
export function isPerformed(request: Request, stored: ResultSummary | undefined): boolean {
  if (!stored) return true
  return isDeadLettered(stored) && request.redrive !== undefined && request.user === stored.user
}

function isDeadLettered(stored: ResultSummary): boolean {
  return stored.status === 'failed' && stored.error.code === 'dead-lettered'
}

/** What becomes of requests of one partition, in their order. Pure. */
export function decide(requests: readonly Request[], known: Known): Decision {
  const stored = new Map(known.stored)
  const countedUsdE8 = new Map(known.countedUsdE8)
  const held = new Set<string>()
  const effects: ({ append: Result[] } | { replace: Result })[] = []
  const replies = new Map<string, Outgoing>()

  function verdictOn(request: Request): Verdict {
    if (held.has(request.user)) return { retry: 'An earlier operation of the same user is not done yet.' }
    const before = stored.get(request.id)
    if (before && !isPerformed(request, before)) return answer(request, before)
    if (isTooOld(request, known.completedAt)) return before ? answer(request, before) : { dead: TOO_OLD }
    const counted = countedUsdE8.get(userDayKey(request)) ?? 0
    const attempt = perform(request, counted, known)
    if (!('result' in attempt)) {
      held.add(request.user)
      return attempt
    }
    const { result } = attempt
    // A redrive improves on a failure or leaves it as it is.
    if (before && result.status === 'failed') return answer(request, before)
    stored.set(result.id, result)
    countedUsdE8.set(userDayKey(result), counted + result.countedUsdE8)
    store(result, before ? 'replace' : 'append')
    return answer(request, result)
  }

  function store(result: Result, how: 'append' | 'replace'): void {
    const last = effects.at(-1)
    if (how === 'replace') effects.push({ replace: result })
    else if (last && 'append' in last) last.append.push(result)
    else effects.push({ append: [result] })
  }

  function answer(request: Request, result: ResultSummary): Verdict {
    replies.set(`${request.id} ${request.redrive}`, reply(result, request))
    return { done: true }
  }

  const verdicts = requests.map(verdictOn)
  return { verdicts, effects, replies: [...replies.values()] }
}

const DAY_MS = 24 * 60 * 60 * 1000
const TOO_OLD = 'It is so old that its result may have been deleted: nothing tells whether it was performed before.'

/** A result is deleted no sooner than so long after its request; the day is for clocks that differ. */
function isTooOld({ createdAt }: Request, now: string): boolean {
  return Date.parse(now) - Date.parse(createdAt) > OPERATION_RETENTION_MS - DAY_MS
}

const MAX_REASON_CHARACTERS = 500

type Attempt = { readonly result: Result } | { readonly dead: string } | { readonly retry: string }

function perform<Type extends OperationType>(
  request: Request & { readonly type: Type },
  countedUsdE8: number,
  { performers, dailyLimitUsdE8, completedAt }: Known,
): Attempt {
  const { id, user, type, rates, createdAt, day, redrive } = request
  const contract: Catalog[Type] = catalog[type]
  const performer: Performer<Catalog[Type]> = performers[type]
  const checked = v.safeParse(contract.input, request.input)
  if (!checked.success) {
    const faults = inputFaults(checked.issues, '#/input').map(({ pointer, detail }) => `${pointer} ${detail}`)
    return { dead: `The input does not fit the contract of ${type}: ${faults.join('; ')}.` }
  }
  const input = checked.output
  try {
    const outcome = performer({ input, rates, countedUsdE8, dailyLimitUsdE8 })
    const base = { id, user, type, input, rates, createdAt, completedAt, day, redrive }
    const result: Result =
      'failure' in outcome
        ? { ...base, status: 'failed', error: outcome.failure, countedUsdE8: 0 }
        : {
            ...base,
            status: 'succeeded',
            output: v.parse(contract.output, outcome.output),
            countedUsdE8: outcome.countsUsdE8 ?? 0,
          }
    // What no message can carry is stored neither.
    reply(result, request)
    return { result }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return { retry: `Performing ${type} failed: ${reason.slice(0, MAX_REASON_CHARACTERS)}` }
  }
}

/** The result of a request that was given up. What is wrong with it is for operators, in the dead letter. */
export function deadLettered(request: Request, completedAt: string): Result {
  const { id, user, type, rates, createdAt, day } = request
  const checked = v.safeParse(catalog[type].input, request.input)
  return {
    id,
    user,
    type,
    input: checked.success ? checked.output : undefined,
    rates,
    createdAt,
    completedAt,
    day,
    status: 'failed',
    error: { code: 'dead-lettered', message: problems['dead-lettered'].help },
    countedUsdE8: 0,
  }
}
