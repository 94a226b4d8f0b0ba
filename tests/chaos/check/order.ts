import { topics } from '../../../common/messages/topics.ts'
import type { Message } from '../snapshot.ts'
import { type Facts, isBefore } from './facts.ts'
import { type Violation, violation } from './violation.ts'

/** One user's operations are sent in the order of acceptance, and performed in the order in which they are sent. */
export function* checkOrder(facts: Facts): Generator<Violation> {
  for (const operation of facts.operations)
    if (!facts.requests.has(operation.id) && !facts.mayBeDeleted(topics.requests, facts.sentMs(operation)))
      yield violation('never sent', operation.id, operation.status)
  for (const operations of Map.groupBy(facts.operations, ({ user }) => user).values()) {
    const sent = operations
      .flatMap(({ id }) => {
        const isFirst = ({ redrive }: Message) => redrive === undefined
        const request = facts.requests.get(id)?.find(isFirst)
        // A misread request is answered when it is dead-lettered, out of the order of performing.
        // A payout is answered when its run has ended, beside the others.
        const isBeside = facts.misread.includes(id) || facts.operationOf.get(id)?.type === 'payout'
        const reply = isBeside ? undefined : facts.replies.get(id)?.find(isFirst)
        return request && !facts.isDelayed(id) ? [{ id, request, reply }] : []
      })
      .sort((a, b) => (isBefore(a.request, b.request) ? -1 : 1))
    yield* checkSent(facts, sent)
    yield* checkPerformed(sent)
  }
  for (const { acknowledged, key } of facts.submissions) {
    const id = acknowledged[0]?.operation.id ?? ''
    const count = facts.requests.get(id)?.filter(({ redrive }) => redrive === undefined).length ?? 0
    if (key.startsWith('calm-') && count > 1) yield violation('sent twice in calm', id, `${count} times`)
  }
}

/** @param sent in the order of the requests */
function* checkSent(facts: Facts, sent: readonly { id: string }[]): Generator<Violation> {
  // Clients know the order of two operations only where one was acknowledged before the other was first sent.
  let earliest: { id: string; acknowledgedMs: number } | undefined
  for (const { id } of sent.toReversed()) {
    const submission = facts.submissionOf.get(id)
    if (!submission) continue
    if (earliest && earliest.acknowledgedMs < submission.firstSentMs)
      yield violation('sent out of order', id, `before ${earliest.id}`)
    const acknowledgedMs = Math.min(...submission.acknowledged.map(({ atMs }) => atMs))
    if (!earliest || acknowledgedMs < earliest.acknowledgedMs) earliest = { id, acknowledgedMs }
  }
}

/** @param sent in the order of the requests */
function* checkPerformed(sent: readonly { id: string; reply: Message | undefined }[]): Generator<Violation> {
  let last: { id: string; reply: Message } | undefined
  for (const { id, reply } of sent) {
    if (!reply) continue
    if (last && isBefore(reply, last.reply)) yield violation('performed out of order', id, `before ${last.id}`)
    else last = { id, reply }
  }
}
