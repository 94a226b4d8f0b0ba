import type { Message, ResultRow } from '../snapshot.ts'
import { decimal, isEqual, roundedHalfEven, roundedUp, times } from './decimal.ts'
import { type Facts, isBefore } from './facts.ts'
import { type Violation, violation } from './violation.ts'

/** Of the currencies that the clients use. */
const MINOR_DIGITS: Readonly<Record<string, number>> = { ARS: 2, EUR: 2, USD: 2, JPY: 0, KWD: 3, BTC: 8 }

/** Every rate, amount, count and limit, computed anew from what was submitted and from the rates of the sources. */
export function* checkMoney(facts: Facts): Generator<Violation> {
  for (const result of facts.results) {
    yield* checkRates(facts, result)
    yield* checkResult(facts, result)
  }
  for (const [userDay, results] of Map.groupBy(facts.results, (result) => `${result.user} on ${dayOf(result)}`)) {
    const sum = results.reduce((total, { counts }) => total + (counts?.amount ?? 0), 0)
    if (sum > facts.limitUsdE8) yield violation('over the limit', userDay, `${sum} e-8 USD`)
    yield* checkDay(facts, results)
  }
}

/** The UTC day against whose limit an operation counts. */
function dayOf({ createdAt }: ResultRow): string {
  return new Date(createdAt).toISOString().slice(0, 10)
}

function* checkRates(facts: Facts, { id, error, facts: rates }: ResultRow): Generator<Violation> {
  if (!rates) {
    if (error?.code !== 'dead-lettered') yield violation('untrue rate', id, 'decided without rates')
    return
  }
  const expected = (rates.source === 'bundled' ? facts.rates.bundled : facts.rates.live)[rates.base]
  for (const { code, rate } of rates.rates) {
    const known = code === rates.base ? '1' : expected?.[code]
    if (known === undefined || !isEqual(decimal(known), decimal(rate))) {
      yield violation('untrue rate', id, `${rates.source}: ${code} at ${rate}, it was ${known}`)
      return
    }
  }
}

function* checkResult(facts: Facts, result: ResultRow): Generator<Violation> {
  const { id, type, status, output, counts, facts: rates } = result
  const operation = facts.operationOf.get(id)
  if (operation && operation.createdAtMs !== Date.parse(result.createdAt))
    yield violation('wrong count', id, `as if accepted at ${result.createdAt}`)
  if (counts && counts.period !== dayOf(result)) yield violation('wrong count', id, `on ${counts.period}`)
  const worth = status === 'succeeded' && rates ? worthUsdE8(result) : 0n
  const counted = BigInt(counts?.amount ?? 0)
  if (counted !== worth) yield violation('wrong count', id, `${counted} and not ${worth} e-8 USD`)
  if (status !== 'succeeded' || !rates) return
  if (type === 'store-rates') {
    if (output?.currencies !== rates.rates.length || output.base !== rates.base)
      yield violation('wrong amount', id, `${output?.currencies} currencies of ${rates.rates.length}`)
    return
  }
  const { amount, rate, currency } = amountOf(result)
  if (output?.amount !== amount || output.rate !== rate || output.currency !== currency)
    yield violation('wrong amount', id, `${result.input?.amount} at ${rate} is ${amount}, not ${output?.amount}`)
}

/** What an order comes to. */
export function amountOf(result: ResultRow): { amount: string; rate: string; currency: string } {
  const { to = '', amount = '' } = result.input ?? {}
  const rate = rateOf(result, to)
  return { amount: roundedHalfEven(times(decimal(amount), decimal(rate)), MINOR_DIGITS[to] ?? 8), rate, currency: to }
}

/**
 * One user's day, in the order of deciding: what has a limit is granted if and only if it fits. A payout that failed counted
 * while its run was under way, and nobody knows until when. So a decision is right if it is right with any sum between
 * that of those which count for good and that of all which were granted.
 */
function* checkDay(facts: Facts, results: readonly ResultRow[]): Generator<Violation> {
  const decided: { result: ResultRow; request: Message }[] = []
  for (const result of results) {
    if (!hasLimit(result) || !result.facts) continue
    const request = facts.requests.get(result.id)?.find(({ redrive }) => redrive === (result.redrive ?? undefined))
    // Where a topic was deleted, the requests do not show the order of deciding any more.
    if (!request || facts.isDelayed(result.id)) return
    decided.push({ result, request })
  }
  decided.sort((a, b) => (isBefore(a.request, b.request) ? -1 : 1))
  const limit = BigInt(facts.limitUsdE8)
  let counted = 0n
  const givenBack: { worth: bigint; knownMs: number }[] = []
  for (const { result } of decided) {
    const worth = worthUsdE8(result)
    const isGranted = result.status === 'succeeded' || facts.runOf.has(result.id)
    // Cancelled before it was decided on, it was neither granted nor refused.
    if (!isGranted && result.error?.code !== 'limit-exceeded') continue
    // Whoever had seen that a payout failed before they sent this one gets what it counted.
    const sentMs = facts.submissionOf.get(result.id)?.firstSentMs ?? 0
    const atMost = givenBack.reduce((sum, each) => (each.knownMs < sentMs ? sum : sum + each.worth), counted)
    if (isGranted ? counted + worth > limit : atMost + worth <= limit)
      yield violation('wrong outcome', result.id, `${worth} e-8 USD after ${counted} to ${atMost}: ${result.status}`)
    if (!isGranted) continue
    if (result.status === 'succeeded') counted += worth
    else givenBack.push({ worth, knownMs: failureKnownMs(facts, result) })
  }
}

/** When a client first saw that it failed. What a redrive began had failed for them before its run did, so nobody saw that. */
function failureKnownMs(facts: Facts, { id, redrive }: ResultRow): number {
  return (redrive ? undefined : facts.terminalMs(id)) ?? Number.POSITIVE_INFINITY
}

function hasLimit({ type }: ResultRow): boolean {
  return type === 'convert' || type === 'payout'
}

/** What the operation counts, rounded up to 1e-8 USD. */
export function worthUsdE8(result: ResultRow): bigint {
  if (!hasLimit(result)) return 0n
  return roundedUp(times(decimal(result.input?.amount ?? ''), decimal(rateOf(result, 'USD'))), 8)
}

function rateOf({ id, facts: rates }: ResultRow, code: string): string {
  if (code === rates?.base) return '1'
  const found = rates?.rates.find((each) => each.code === code)
  if (!found) throw new Error(`The rates of ${id} lack ${code}.`)
  return found.rate
}
