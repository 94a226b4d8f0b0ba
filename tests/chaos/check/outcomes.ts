import * as v from 'valibot'
import { topics } from '../../../common/messages/topics.ts'
import type { SeenOperation } from '../history.ts'
import type { Message, OperationRow, ResultRow } from '../snapshot.ts'
import type { Facts, Order } from './facts.ts'
import type { Violation } from './violation.ts'

/** Everything must be terminal so long after the last fault; whoever looks for that takes some time, too. */
export const SETTLE_MS = 30_000
const LOOK_MS = 5000
/** After so long no GET that began earlier is still under way. */
const GET_MS = 10_000

/** What was acknowledged has exactly one outcome, wherever one looks; what was refused has none. */
export function* checkOutcomes(facts: Facts): Generator<Violation> {
  const byKey = Map.groupBy(facts.operations, ({ user, key }) => `${user} ${key}`)
  for (const order of facts.orders) yield* checkOrder(facts, order, byKey.get(`${order.user} ${order.key}`) ?? [])
  const known = new Set(facts.orders.map(({ user, key }) => `${user} ${key}`))
  for (const { id, user, key } of facts.operations)
    if (!known.has(`${user} ${key}`)) yield { rule: 'of nobody', subject: id, detail: `an operation, key ${key}` }
  for (const { id } of facts.results)
    if (!facts.operationOf.has(id)) yield { rule: 'of nobody', subject: id, detail: 'a result' }
  for (const operation of facts.operations) yield* checkOperation(facts, operation)
}

/** @param stored the operations that gateway has of this key */
function* checkOrder(facts: Facts, order: Order, stored: readonly OperationRow[]): Generator<Violation> {
  const { user, key, inputs, acknowledged } = order
  const ids = new Set([...acknowledged.map(({ operation }) => operation.id), ...stored.map(({ id }) => id)])
  if (ids.size > 1) yield { rule: 'key of two', subject: key, detail: [...ids].join(', ') }
  if (order.refused && stored[0]) yield { rule: 'refused with effect', subject: stored[0].id, detail: `key ${key}` }
  for (const { attempt, operation } of acknowledged) {
    const { id } = operation
    const row = facts.operationOf.get(id)
    if (!row) {
      yield { rule: 'lost', subject: id, detail: `key ${key}` }
      continue
    }
    if (row.user !== user || row.key !== key) yield { rule: 'two keys', subject: id, detail: `${key} and ${row.key}` }
    const asked = inputs.find((input) => input.attempt === attempt)
    if (row.type !== asked?.type || !Bun.deepEquals(row.input, asked.input))
      yield { rule: 'altered', subject: id, detail: `asked ${say(asked?.input)}, stored ${say(row.input)}` }
  }
}

function* checkOperation(facts: Facts, operation: OperationRow): Generator<Violation> {
  const { id } = operation
  const seen = facts.seen.get(id) ?? []
  const acknowledged = facts.orderOf.has(id)
  if (acknowledged) {
    const terminalMs = seen.find((entry) => entry.operation && entry.operation.status !== 'pending')?.atMs
    const last = seen.findLast(({ how, operation: shown }) => how === 'last' && shown)?.operation
    if (terminalMs === undefined || last?.status === 'pending')
      yield { rule: 'late', subject: id, detail: `last seen ${last?.status ?? 'never'}` }
    else if (terminalMs > facts.faultsEndedAtMs + SETTLE_MS + LOOK_MS)
      yield { rule: 'late', subject: id, detail: `${terminalMs - facts.faultsEndedAtMs} ms after the last fault` }
    for (const { status } of seen)
      if (status === 404) {
        yield { rule: 'said 404', subject: id, detail: '' }
        break
      }
  }
  if (operation.status === 'pending') {
    yield { rule: 'not terminal', subject: id, detail: `accepted ${new Date(operation.createdAtMs).toISOString()}` }
    return
  }
  const result = facts.resultOf.get(id)
  if (!result) {
    yield { rule: 'no result', subject: id, detail: operation.status }
    return
  }
  const outcome = outcomeOfRow(operation)
  if (result.user !== operation.user || !sameOutcome(outcome, outcomeOfResult(result)))
    yield {
      rule: 'outcomes differ',
      subject: id,
      detail: `gateway ${say(outcome)}, processor ${say(outcomeOfResult(result))}`,
    }
  yield* checkReplies(facts, operation, result)
  yield* checkSeen(facts, operation, outcome)
}

function* checkReplies(facts: Facts, operation: OperationRow, result: ResultRow): Generator<Violation> {
  const { id } = operation
  const replies = facts.replies.get(id) ?? []
  const final = outcomeOfResult(result)
  if (replies.length === 0 && !facts.lostWith(topics.results, facts.sentMs(operation)))
    yield { rule: 'no reply', subject: id, detail: final.status }
  const said = new Map<string, Message>()
  for (const reply of replies) {
    const outcome = outcomeOfReply(reply)
    const allowed = sameOutcome(outcome, final) || (result.redrive && isDeadLetter(outcome))
    if (!allowed)
      yield { rule: 'outcomes differ', subject: id, detail: `a reply says ${say(outcome)}, processor ${say(final)}` }
    // Two replies to the same must be the same to the letter, times too: they come from what is stored.
    const name = `${reply.redrive} ${outcome.status}`
    const before = said.get(name)
    if (before && before.value !== reply.value)
      yield { rule: 'outcomes differ', subject: id, detail: `two replies: ${before.value} and ${reply.value}` }
    said.set(name, reply)
  }
  const redrives = new Set(replies.flatMap(({ redrive }) => redrive ?? []))
  if (result.redrive && !facts.misread.includes(id))
    yield { rule: 'redriven twice', subject: id, detail: 'it was never set aside' }
  if (result.redrive && redrives.size > 0 && !redrives.has(result.redrive))
    yield { rule: 'redriven twice', subject: id, detail: [...redrives].join(', ') }
}

/** What clients saw: the outcome that stands, and once terminal never anything else, but for one redrive. */
function* checkSeen(facts: Facts, operation: OperationRow, final: Outcome): Generator<Violation> {
  const { id } = operation
  const answers = (facts.orderOf.get(id)?.acknowledged ?? [])
    .filter((answer) => answer.operation.id === id)
    .map(({ atMs, operation: shown }) => ({ atMs, shown }))
  const looks = (facts.seen.get(id) ?? []).flatMap(({ atMs, operation: shown }) => (shown ? [{ atMs, shown }] : []))
  const redriven = facts.resultOf.get(id)?.redrive
  let firstTerminalMs: number | undefined
  let improved = false
  for (const { atMs, shown } of [...answers, ...looks].sort((a, b) => a.atMs - b.atMs)) {
    if (shown.status === 'pending') {
      if (firstTerminalMs !== undefined && atMs > firstTerminalMs + GET_MS) {
        yield { rule: 'changed', subject: id, detail: 'it was terminal and then pending' }
        return
      }
      continue
    }
    firstTerminalMs ??= atMs
    const outcome = outcomeOfSeen(shown)
    if (sameOutcome(outcome, final)) improved = true
    else if (!(redriven && isDeadLetter(outcome) && !(improved && atMs > firstTerminalMs + GET_MS))) {
      yield { rule: 'changed', subject: id, detail: `a client saw ${say(outcome)}, it is ${say(final)}` }
      return
    }
  }
}

interface Outcome {
  readonly status: string
  readonly output: unknown
  readonly error: string | undefined
}

function sameOutcome(a: Outcome, b: Outcome): boolean {
  return a.status === b.status && a.error === b.error && Bun.deepEquals(a.output, b.output)
}

function isDeadLetter({ status, error }: Outcome): boolean {
  return status === 'failed' && error === 'dead-lettered'
}

function outcomeOfRow({ status, output, errorCode }: OperationRow): Outcome {
  return { status, output: output ?? undefined, error: errorCode ?? undefined }
}

function outcomeOfResult({ status, output, error }: ResultRow): Outcome {
  return { status, output: output ?? undefined, error: error?.code }
}

function outcomeOfSeen({ status, output, error }: SeenOperation): Outcome {
  return { status, output, error: error?.code }
}

const Reply = v.object({
  output: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ code: v.string() })),
})

function outcomeOfReply({ type, value }: Message): Outcome {
  const reply = v.safeParse(v.pipe(v.string(), v.parseJson(), Reply), value)
  const status = type?.split('.').at(-1) ?? ''
  if (!reply.success) return { status: `${status}, unreadable`, output: undefined, error: undefined }
  return { status, output: reply.output.output, error: reply.output.error?.code }
}

function say(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 300) ?? 'nothing'
}
