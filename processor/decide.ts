// 4. Decides what becomes of each request. It reads and writes nothing; clocks come as arguments. Next: performers/<type>.ts

import type { Verdict } from '@posta/common/consumer/handler.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { type Contracts, catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import { periodOf } from '@posta/common/operations/contract.ts'
import { OPERATION_RETENTION_MS } from '@posta/common/operations/retention.ts'
import { inputFaults, problems } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { PerformerSettings } from './config.ts'
import type { AnyPerformer, LimitState } from './performers/performer.ts'
import type { Performers } from './performers/performers.ts'
import type { Request } from './read-asked.ts'
import { toReply } from './reply.ts'
import { type Allowance, allowanceKey, type Outcome, type Result, type ResultSummary } from './results/results.ts'
import type { NewRun } from './runs/runs.ts'

/** All that a decision depends on, besides the requests. */
interface Known {
  readonly contracts: Contracts
  readonly performers: Performers
  /** The bound of each limit, by its name, in the limit's units. */
  readonly bounds: ReadonlyMap<string, number>
  readonly settings: PerformerSettings
  /** The results that these operations have already, by id. */
  readonly stored: ReadonlyMap<string, ResultSummary>
  /** What the operations before these requests use of each allowance, by `allowanceKey`, in the limit's units. */
  readonly used: ReadonlyMap<string, number>
  /** The ids of operations that are cancelled already. */
  readonly cancelled: ReadonlySet<string>
  /** The time, RFC 3339. It is read after each decision, so that it says when the work was done. */
  readonly now: () => string
  readonly monotonicMs: () => number
  /** Called with how long each decision took. */
  readonly onDecided: (type: OperationType, tookMs: number) => void
}

/** What is to be stored: new results, or one that replaces a dead-lettered failure. */
export type Effect = { readonly append: readonly Result[] } | { readonly replace: Result }

export interface Decision {
  /** One per request. */
  readonly verdicts: readonly Verdict[]
  /** In the order of the requests. */
  readonly effects: readonly Effect[]
  /** Runs to create once the effects are stored; some may exist already. */
  readonly runs: readonly NewRun[]
  /** Redriven requests of operations whose run exists. */
  readonly redriven: readonly Request[]
  /** To be published once the effects are stored. */
  readonly replies: readonly Outgoing[]
}

/** What an operation counts against; undefined if its contract has no limit. */
export function allowanceOf(
  { user, type, createdAt }: Pick<Request, 'user' | 'type' | 'createdAt'>,
  contracts: Contracts,
): Allowance | undefined {
  const { limit } = contracts[type]
  return limit && { user, limit: limit.name, period: periodOf(limit, createdAt) }
}

/** Decides on requests of one partition, in their order. */
export function decide(requests: readonly Request[], known: Known): Decision {
  const stored = new Map(known.stored)
  const used = new Map(known.used)
  /** Users with a request in this batch that could not be performed. */
  const blocked = new Set<string>()
  const effects: ({ append: Result[] } | { replace: Result })[] = []
  const runs = new Map<string, NewRun>()
  const redriven: Request[] = []
  const replies = new Map<string, Outgoing>()

  function verdictOn(request: Request): Verdict {
    if (blocked.has(request.user)) return { retry: 'An earlier operation of the same user is not done yet.' }
    const before = stored.get(request.id)
    if (before?.status === 'running') return goOn(request, before)
    const tooOld = isTooOld(request, known.now())
    if (before && (tooOld || !mayBeReplaced(before, request))) return answer(request, before)
    if (tooOld) return { dead: 'It is so old that its result may be deleted: its effect could happen twice.' }
    const attempt = perform(request, used, known)
    if (!('result' in attempt)) {
      blocked.add(request.user)
      return attempt
    }
    const { result, reply } = attempt
    // A redrive that fails changes nothing.
    if (before && result.status === 'failed') return answer(request, before)
    stored.set(result.id, result)
    if (result.counts) {
      const key = allowanceKey({ user: result.user, ...result.counts })
      used.set(key, (used.get(key) ?? 0) + result.counts.amount)
    }
    const last = effects.at(-1)
    if (before) effects.push({ replace: result })
    else if (last && 'append' in last) last.append.push(result)
    else effects.push({ append: [result] })
    return result.status === 'running' ? goOn(request, result) : answer(request, result, reply)
  }

  function goOn(request: Request, result: Running): Verdict {
    if (request.user !== result.user) return { dead: 'The operation is of another user.' }
    if (!runs.has(request.id)) runs.set(request.id, toRun(request, result))
    if (request.redrive !== undefined) redriven.push(request)
    return { done: true }
  }

  function answer(request: Request, result: Outcome, reply = toReply(result, request)): Verdict {
    replies.set(`${request.id} ${request.redrive}`, reply)
    return { done: true }
  }

  const verdicts = requests.map(verdictOn)
  return { verdicts, effects, runs: [...runs.values()], redriven, replies: [...replies.values()] }
}

type Running = Extract<ResultSummary, { status: 'running' }>

/** The run of an operation that `decide` said to go on with. */
function toRun(request: Request, { version, decided, decidedAt }: Running): NewRun {
  const { id, user, type, input, facts, createdAt, redrive, traceparent, position } = request
  const decidedAtMs = Date.parse(decidedAt)
  return { id, user, type, version, input, facts, createdAt, decidedAtMs, decided, redrive, traceparent, position }
}

/** Only a dead-lettered failure may be replaced, by a redrive. */
function mayBeReplaced(stored: Outcome, { user, redrive }: Request): boolean {
  const deadLettered = stored.status === 'failed' && stored.error.code === 'dead-lettered'
  return deadLettered && redrive !== undefined && user === stored.user
}

const DAY_MS = 24 * 60 * 60 * 1000

/** Whether the result of a request may have been deleted already. The day allows for clocks that differ. */
function isTooOld({ createdAt }: Request, now: string): boolean {
  return Date.parse(now) - Date.parse(createdAt) > OPERATION_RETENTION_MS - DAY_MS
}

const MAX_REASON_CHARACTERS = 500

type Attempt =
  | { readonly result: Result; readonly reply?: Outgoing }
  | { readonly dead: string }
  | { readonly retry: string }

function perform(
  request: Request,
  used: ReadonlyMap<string, number>,
  { contracts, performers, bounds, settings, cancelled, now, monotonicMs, onDecided }: Known,
): Attempt {
  const { id, user, type, createdAt, redrive } = request
  const contract = contracts[type]
  const performer: AnyPerformer = performers[type]
  const checked = v.safeParse(contract.input, request.input)
  if (!checked.success) return { dead: faultsOf('input', type, checked.issues) }
  const prepared = v.safeParse(contract.facts, request.facts)
  if (!prepared.success) return { dead: faultsOf('facts', type, prepared.issues) }
  const input = checked.output
  const facts = prepared.output
  const common = { id, user, type, input, facts, createdAt, redrive }
  if (cancelled.has(id))
    return ended({ ...common, status: 'failed', error: cancelledBefore, completedAt: now() }, request)
  const allowance = allowanceOf(request, contracts)
  const limit: LimitState = allowance
    ? { used: used.get(allowanceKey(allowance)) ?? 0, bound: bounds.get(allowance.limit) ?? 0 }
    : { used: 0, bound: Number.POSITIVE_INFINITY }
  const countsOf = (amount = 0) => allowance && { limit: allowance.limit, period: allowance.period, amount }
  try {
    const asked = { id, user, createdAt, input, facts, limit, settings: settings.get(type) ?? {} }
    const startedMs = monotonicMs()
    const outcome = performer.decide(asked)
    onDecided(type, monotonicMs() - startedMs)
    const completedAt = now()
    if ('failure' in outcome)
      return ended({ ...common, status: 'failed', error: outcome.failure, completedAt }, request)
    if ('output' in outcome)
      return ended(
        {
          ...common,
          status: 'succeeded',
          output: v.parse(contract.output, outcome.output),
          lookup: outcome.lookup,
          counts: countsOf(outcome.counts),
          completedAt,
        },
        request,
      )
    return {
      result: {
        ...common,
        status: 'running',
        version: performer.version ?? 1,
        decided: outcome.goOn,
        decidedAt: completedAt,
        counts: countsOf(outcome.counts),
      },
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return { retry: `Performing ${type} failed: ${reason.slice(0, MAX_REASON_CHARACTERS)}` }
  }
}

const cancelledBefore = { code: 'cancelled', message: 'It was cancelled before it was performed.' } as const

/** Making the reply throws for a result that is too large for a message, so that it is not stored. */
function ended(result: Result & Outcome, request: Request): Attempt {
  return { result, reply: toReply(result, request) }
}

function faultsOf(member: 'input' | 'facts', type: OperationType, issues: readonly v.BaseIssue<unknown>[]): string {
  const faults = inputFaults(issues, `#/${member}`).map(({ pointer, detail }) => `${pointer} ${detail}`)
  return `The request does not fit the contract of ${type}: ${faults.join('; ')}.`
}

/** The result of a request that was dead-lettered. Operators find the reason, and what it held, in the dead letter. */
export function deadLettered(request: Request, completedAt: string): Result & Outcome {
  const { id, user, type, createdAt } = request
  const checked = v.safeParse(catalog[type].input, request.input)
  return {
    id,
    user,
    type,
    input: checked.success ? checked.output : undefined,
    createdAt,
    completedAt,
    status: 'failed',
    error: { code: 'dead-lettered', message: problems['dead-lettered'].help },
  }
}
