import { topics } from '../../../common/messages/topics.ts'
import type { Message } from '../snapshot.ts'
import { type Facts, isBefore } from './facts.ts'
import type { Violation } from './violation.ts'

/** One user's operations are sent in the order in which they were accepted, and performed in the order in which they were sent. */
export function* checkOrder(facts: Facts): Generator<Violation> {
  for (const operation of facts.operations)
    if (!facts.requests.has(operation.id) && !facts.lostWith(topics.requests, facts.sentMs(operation)))
      yield { rule: 'never sent', subject: operation.id, detail: operation.status }
  for (const [, ids] of Map.groupBy(facts.operations, ({ user }) => user)) {
    const places = ids.flatMap(({ id }) => {
      const request = facts.requests.get(id)?.find(({ redrive }) => redrive === undefined)
      const reply = facts.replies.get(id)?.find(({ redrive }) => redrive === undefined)
      // What a topic took with it comes again later, and what was read wrongly is answered when it is set aside.
      return request && !facts.delayed(id)
        ? [{ id, request, reply: facts.misread.includes(id) ? undefined : reply }]
        : []
    })
    places.sort((a, b) => (isBefore(a.request, b.request) ? -1 : 1))
    yield* checkSent(
      facts,
      places.map(({ id }) => id),
    )
    yield* checkPerformed(places)
  }
  for (const { acknowledged, key } of facts.orders) {
    const id = acknowledged[0]?.operation.id
    const count = id === undefined ? 0 : (facts.requests.get(id)?.length ?? 0)
    if (id !== undefined && key.startsWith('calm-') && count > 1)
      yield { rule: 'sent twice in calm', subject: id, detail: `${count} times` }
  }
}

/** @param ids in the order in which they were sent */
function* checkSent(facts: Facts, ids: readonly string[]): Generator<Violation> {
  // Only what the client knows counts: one acknowledged before the other was sent for the first time was accepted before it.
  let firstLater: { id: string; acknowledgedMs: number } | undefined
  for (const id of ids.toReversed()) {
    const order = facts.orderOf.get(id)
    if (!order) continue
    if (firstLater && firstLater.acknowledgedMs < order.firstSentMs)
      yield { rule: 'sent out of order', subject: id, detail: `before ${firstLater.id}` }
    const acknowledgedMs = Math.min(...order.acknowledged.map(({ atMs }) => atMs))
    if (!firstLater || acknowledgedMs < firstLater.acknowledgedMs) firstLater = { id, acknowledgedMs }
  }
}

/** @param places in the order of the requests */
function* checkPerformed(places: readonly { id: string; reply: Message | undefined }[]): Generator<Violation> {
  let last: { id: string; reply: Message } | undefined
  for (const { id, reply } of places) {
    if (!reply) continue
    if (last && isBefore(reply, last.reply))
      yield { rule: 'performed out of order', subject: id, detail: `before ${last.id}` }
    else last = { id, reply }
  }
}
