import * as v from 'valibot'
import { topics } from '../../../common/messages/topics.ts'
import type { Message } from '../snapshot.ts'
import { type Facts, isBefore } from './facts.ts'
import { type Violation, violation } from './violation.ts'

const Data = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ by: v.string(), payload: v.optional(v.object({ approved: v.boolean() })) }),
)
const types = { 'posta.operation.cancel-requested': 'cancel', 'posta.operation.signalled': 'approve' } as const
const isTold = (type: string | undefined): type is keyof typeof types => type !== undefined && type in types

/** Every cancel and every answer that was accepted is on the topic, once and after its request; and no other is. */
export function* checkTold(facts: Facts): Generator<Violation> {
  const toldOf = Map.groupBy(
    facts.messages.filter(({ topic, type }) => topic === topics.requests && isTold(type)),
    ({ operation }) => operation ?? '',
  )
  for (const [operation, messages] of toldOf) {
    for (const message of messages) yield* checkMessage(facts, operation, message)
    const calm = facts.submissionOf.get(operation)?.key.startsWith('calm-')
    if (calm && new Set(messages.map(({ id }) => id)).size < messages.length)
      yield violation('sent twice in calm', operation, messages.map(({ id }) => id).join(', '))
  }
  yield* checkAnswers(facts, toldOf)
}

function* checkMessage(facts: Facts, operation: string, message: Message): Generator<Violation> {
  const { type, value } = message
  const data = v.safeParse(Data, value)
  const isAsked = facts.tellsOf
    .get(operation)
    ?.some(
      ({ what, user, approved }) =>
        data.success &&
        isTold(type) &&
        types[type] === what &&
        user === data.output.by &&
        approved === data.output.payload?.approved,
    )
  if (!isAsked) yield violation('never asked', operation, `${type} ${value}`)
  const [request] = facts.requests.get(operation) ?? []
  if (request && !isBefore(request, message) && !facts.isDelayed(operation))
    yield violation('sent out of order', operation, `its ${type} came before it`)
}

function* checkAnswers(facts: Facts, toldOf: ReadonlyMap<string, readonly Message[]>): Generator<Violation> {
  /** What each user told each operation last, by user, operation and name. */
  const told = new Map<string, { atMs: number; approved?: boolean | undefined }>()
  /** Answers that were accepted, of each operation. */
  const accepted = new Map<string, boolean | undefined>()
  for (const entry of facts.history) {
    if (entry.kind !== 'tell' && entry.kind !== 'told') continue
    const { id, user, what } = entry
    const name = `${user} ${id} ${what}`
    if (entry.kind === 'tell') {
      told.set(name, entry)
      continue
    }
    const { status } = entry
    if (status === 404) yield violation('answered 404', id, what)
    if (status !== 202) continue
    const asked = told.get(name)
    // What failed by dead letter may go on after a redrive, and is told things until that succeeds.
    const isDead = facts.misread.includes(id) || facts.operationOf.get(id)?.errorCode === 'dead-lettered'
    const endedMs = isDead ? undefined : facts.terminalMs(id)
    const mayNot = what === 'approve' && !facts.operators.has(user)
    const again = what === 'approve' && accepted.has(id) && accepted.get(id) !== asked?.approved
    if (mayNot || again || (endedMs !== undefined && endedMs < (asked?.atMs ?? 0)))
      yield violation('answered wrongly', id, `${what} by ${user}: 202`)
    if (what === 'approve') accepted.set(id, asked?.approved)
    const sent = `${id}.${what === 'cancel' ? what : 'signal.approve'}`
    const isSent = toldOf.get(id)?.some((message) => message.id === sent)
    if (!isSent && !facts.mayBeDeleted(topics.requests, entry.atMs)) yield violation('not told', id, what)
  }
}
