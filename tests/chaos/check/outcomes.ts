import * as v from 'valibot'
import { topics } from '../../../common/messages/topics.ts'
import type { SeenOperation } from '../history.ts'
import type { Message, OperationRow, ResultRow } from '../snapshot.ts'
import type { Facts, Submission } from './facts.ts'
import { type Violation, violation } from './violation.ts'

/** Everything must be terminal so long after the last fault, and be seen so a little later. */
export const SETTLE_MS = 30_000
const LOOK_MS = 5000
/** After so long no GET that began earlier is still under way. */
const GET_MS = 10_000

/** What was acknowledged has one outcome, the same everywhere. What was refused has none. */
export function* checkOutcomes(facts: Facts): Generator<Violation> {
  const byKey = Map.groupBy(facts.operations, ({ user, key }) => `${user} ${key}`)
  const submitted = new Set<string>()
  for (const submission of facts.submissions) {
    const userKey = `${submission.user} ${submission.key}`
    submitted.add(userKey)
    yield* checkSubmission(facts, submission, byKey.get(userKey) ?? [])
  }
  for (const [userKey, operations] of byKey)
    if (!submitted.has(userKey))
      for (const { id, key } of operations) yield violation('never submitted', id, `an operation, key ${key}`)
  for (const { id } of facts.results) if (!facts.operationOf.has(id)) yield violation('never submitted', id, 'a result')
  for (const operation of facts.operations) yield* checkOperation(facts, operation)
}

/** @param stored the operations that gateway has with this key */
function* checkSubmission(
  facts: Facts,
  { user, key, sent, acknowledged, refused }: Submission,
  stored: readonly OperationRow[],
): Generator<Violation> {
  const ids = new Set([...acknowledged.map(({ operation }) => operation.id), ...stored.map(({ id }) => id)])
  if (ids.size > 1) yield violation('two operations', key, [...ids].join(', '))
  if (refused && stored[0]) yield violation('refused and stored', stored[0].id, `key ${key}`)
  for (const { attempt, operation } of acknowledged) {
    const { id } = operation
    const row = facts.operationOf.get(id)
    if (!row) {
      yield violation('lost', id, `key ${key}`)
      continue
    }
    if (row.user !== user || row.key !== key) yield violation('another key', id, `${key} and ${row.key}`)
    const asked = sent.find((each) => each.attempt === attempt)
    if (row.type !== asked?.type || !Bun.deepEquals(row.input, asked.input))
      yield violation('altered', id, `asked ${show(asked?.input)}, stored ${show(row.input)}`)
  }
}

function* checkOperation(facts: Facts, operation: OperationRow): Generator<Violation> {
  const { id, status } = operation
  if (facts.submissionOf.has(id)) {
    const seen = facts.seen.get(id) ?? []
    const terminalMs = facts.terminalMs(id)
    const last = seen.findLast(({ how, operation: shown }) => how === 'last' && shown)?.operation
    if (terminalMs === undefined || last?.status === 'pending')
      yield violation('late', id, `last seen ${last?.status ?? 'never'}`)
    else if (terminalMs > facts.faultsEndedAtMs + SETTLE_MS + LOOK_MS)
      yield violation('late', id, `${terminalMs - facts.faultsEndedAtMs} ms after the last fault`)
    if (seen.some((entry) => entry.status === 404)) yield violation('answered 404', id)
  }
  const result = facts.resultOf.get(id)
  if (status === 'pending')
    yield violation('not terminal', id, `accepted ${new Date(operation.createdAtMs).toISOString()}`)
  else if (!result) yield violation('no result', id, status)
  else {
    const outcome = outcomeOf(operation, operation.errorCode)
    const stored = outcomeOf(result, result.error?.code)
    if (result.user !== operation.user || !isSame(outcome, stored))
      yield violation('outcomes differ', id, `gateway ${show(outcome)}, processor ${show(stored)}`)
    yield* checkReplies(facts, operation, result, stored)
    yield* checkSeen(facts, id, outcome)
  }
}

function* checkReplies(
  facts: Facts,
  operation: OperationRow,
  { redrive }: ResultRow,
  final: Outcome,
): Generator<Violation> {
  const { id } = operation
  const replies = facts.replies.get(id) ?? []
  if (replies.length === 0 && !facts.mayBeDeleted(topics.results, facts.sentMs(operation)))
    yield violation('no reply', id, final.status)
  const earlier = new Map<string, Message>()
  for (const reply of replies) {
    const outcome = outcomeOfReply(reply)
    if (!isSame(outcome, final) && !(redrive && isDeadLetter(outcome)))
      yield violation('outcomes differ', id, `a reply says ${show(outcome)}, processor ${show(final)}`)
    // Replies come from the stored result, so two replies to the same request are equal to the letter.
    const name = `${reply.redrive} ${outcome.status}`
    const before = earlier.get(name)
    if (before && before.value !== reply.value)
      yield violation('outcomes differ', id, `two replies: ${before.value} and ${reply.value}`)
    earlier.set(name, reply)
  }
  if (!redrive) return
  const redrives = new Set(replies.flatMap((reply) => reply.redrive ?? []))
  if (!facts.misread.includes(id)) yield violation('redriven twice', id, 'it was never dead-lettered')
  if (redrives.size > 0 && !redrives.has(redrive)) yield violation('redriven twice', id, [...redrives].join(', '))
}

/** Clients saw the final outcome, and once it was terminal nothing else, except for one redrive. */
function* checkSeen(facts: Facts, id: string, final: Outcome): Generator<Violation> {
  const acknowledged = facts.submissionOf.get(id)?.acknowledged ?? []
  const shown = [...acknowledged.filter(({ operation }) => operation.id === id), ...(facts.seen.get(id) ?? [])]
    .flatMap(({ atMs, operation }) => (operation ? [{ atMs, operation }] : []))
    .sort((a, b) => a.atMs - b.atMs)
  const redriven = facts.resultOf.get(id)?.redrive
  let firstTerminalMs: number | undefined
  let wasFinal = false
  for (const { atMs, operation } of shown) {
    // Within GET_MS an older answer may still have been under way.
    const isLater = firstTerminalMs !== undefined && atMs > firstTerminalMs + GET_MS
    if (operation.status === 'pending') {
      if (!isLater) continue
      yield violation('changed', id, 'it was terminal and then pending')
      return
    }
    firstTerminalMs ??= atMs
    const outcome = outcomeOf(operation, operation.error?.code)
    if (isSame(outcome, final)) wasFinal = true
    else if (!redriven || !isDeadLetter(outcome) || (wasFinal && isLater)) {
      yield violation('changed', id, `a client saw ${show(outcome)}, it is ${show(final)}`)
      return
    }
  }
}

interface Outcome {
  readonly status: string
  readonly output: unknown
  readonly error: string | undefined
}

function isSame(a: Outcome, b: Outcome): boolean {
  return a.status === b.status && a.error === b.error && Bun.deepEquals(a.output, b.output)
}

function isDeadLetter({ status, error }: Outcome): boolean {
  return status === 'failed' && error === 'dead-lettered'
}

function outcomeOf(
  { status, output }: Pick<OperationRow | ResultRow | SeenOperation, 'status' | 'output'>,
  errorCode: string | null | undefined,
): Outcome {
  return { status, output: output ?? undefined, error: errorCode ?? undefined }
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

function show(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 300) ?? 'nothing'
}
