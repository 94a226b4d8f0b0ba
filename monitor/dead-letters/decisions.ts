import { type Broker, tooLarge } from '@posta/common/broker/broker.ts'
import { redriveId } from '@posta/common/messages/dead-letter.ts'
import { decode, type Envelope, encode } from '@posta/common/messages/envelope.ts'
import { type Header, headerText, type Outgoing } from '@posta/common/messages/message.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { Choice, DeadLetters, Decision, DecisionOn, StoredDeadLetter } from './dead-letters.ts'

/** What came of it: decided now; decided the same before; or not possible, and why. */
export type Outcome =
  | { readonly result: 'done' | 'already'; readonly deadLetter: StoredDeadLetter }
  | { readonly result: 'refused'; readonly deadLetter: StoredDeadLetter; readonly detail: string }

export interface Decisions {
  /**
   * Decides about one dead letter. Resolves with it as it is now.
   * @throws Problem `not-found`; `conflict` where the opposite was decided, or the choice is not possible; `overloaded`
   * while the broker is down: then the decision is recorded, and is carried out later.
   */
  decide(asked: { readonly id: string; readonly by: string; readonly choice: Choice }): Promise<StoredDeadLetter>
  /**
   * Decides about several, with one publish for all. Resolves with an outcome for each that exists, in the order of the ids.
   * @throws Problem `overloaded`, as `decide`
   */
  decideAll(ids: readonly string[], by: string, choice: Choice): Promise<Outcome[]>
  /** Publishes what was decided, and confirms it. A rejection may leave some of that done. */
  carryOut(decided: readonly StoredDeadLetter[]): Promise<void>
}

/**
 * Decisions about dead letters. A redrive sends the message again; a discard does not, and tells processor where the message
 * asked for an operation, whose run may be stuck. Each is also an event that says who decided.
 *
 * A decision has its effect once, however often it is asked for, by however many, and wherever a process crashes. The first
 * decision is recorded before anything is published, and no other is possible after it. The id of its event follows from
 * the dead letter's id; a redriven message carries it as `ce_redrive`. `finishDecisions` publishes the same messages again
 * until the broker has confirmed them. Asking for the same redrive again sends the same message again: that restores what
 * was lost with its topic, and changes nothing otherwise.
 */
export function createDecisions(options: {
  deadLetters: Pick<DeadLetters, 'find' | 'decide' | 'confirm'>
  broker: Pick<Broker, 'publish'>
  deps: Pick<Deps, 'now'>
}): Decisions {
  const { deadLetters, broker, deps } = options
  /** By id: whoever wants to publish what is being published already waits for that. */
  const publishing = new Map<string, Promise<void>>()

  async function publish(decided: readonly StoredDeadLetter[]): Promise<void> {
    const messages = decided.flatMap((each) => (each.decision ? messagesOf(each, each.decision) : []))
    if (messages.length > 0) await broker.publish(messages)
    await deadLetters.confirm(decided.flatMap(({ id, decision }) => (decision ? [{ id, decision }] : [])))
  }

  async function carryOut(decided: readonly StoredDeadLetter[]): Promise<void> {
    const fresh = decided.filter(({ id }) => !publishing.has(id))
    if (fresh.length > 0) {
      const published = publish(fresh).finally(() => {
        for (const { id } of fresh) publishing.delete(id)
      })
      for (const { id } of fresh) publishing.set(id, published)
    }
    await Promise.all(new Set(decided.map(({ id }) => publishing.get(id))))
  }

  async function carryOutNow(decided: readonly StoredDeadLetter[]): Promise<void> {
    if (decided.length === 0) return
    try {
      await carryOut(decided)
    } catch (error) {
      const detail = decided.some(({ status }) => status === 'open')
        ? 'It is recorded, and will be carried out as soon as the broker takes messages. Asking again is safe.'
        : 'It was sent before. To have it sent again, ask again once the broker takes messages.'
      throw new Problem('overloaded', detail, { retryAfterS: 5, cause: error })
    }
  }

  async function decideAll(ids: readonly string[], by: string, choice: Choice): Promise<Outcome[]> {
    const at = new Date(deps.now()).toISOString()
    const found = await deadLetters.find(ids)
    const proposed = [...found.values()]
      .filter((each) => !each.decision && obstacleTo(each, choice) === undefined)
      .map(({ id }): DecisionOn => ({ id, decision: { event: eventOf(id, choice.to), by, at, ...choice } }))
    const decidedNow = await deadLetters.decide(proposed)
    // Another operator may have been faster: what counts is what is recorded.
    const recorded = new Map([...found, ...(await deadLetters.find(proposed.map(({ id }) => id)))])
    const outcomes = ids.flatMap((id): Outcome[] => {
      const deadLetter = recorded.get(id)
      if (!deadLetter) return []
      const detail = obstacleTo(deadLetter, choice)
      if (detail !== undefined) return [{ result: 'refused', deadLetter, detail }]
      return [{ result: decidedNow.has(id) ? 'done' : 'already', deadLetter }]
    })
    const possible = outcomes.filter(({ result }) => result !== 'refused').map(({ deadLetter }) => deadLetter)
    await carryOutNow(possible.filter(({ status }) => status !== 'discarded'))
    return outcomes.map((outcome) =>
      outcome.result === 'refused' ? outcome : { ...outcome, deadLetter: { ...outcome.deadLetter, status: choice.to } },
    )
  }

  return {
    async decide({ id, by, choice }) {
      const [outcome] = await decideAll([id], by, choice)
      if (!outcome) throw new Problem('not-found', 'There is no such dead letter.')
      if (outcome.result === 'refused') throw new Problem('conflict', outcome.detail)
      return outcome.deadLetter
    },
    decideAll,
    carryOut,
  }
}

/** Why the choice is not possible, for people. Undefined where it is possible, or was made before. */
function obstacleTo(deadLetter: StoredDeadLetter, { to }: Choice): string | undefined {
  const { decision, redrivable } = deadLetter
  if (decision) return decision.to === to ? undefined : `It was ${decision.to} by ${decision.by} at ${decision.at}.`
  if (to === 'discarded') return undefined
  if (!redrivable)
    return deadLetter.group === undefined
      ? 'It cannot be read as a dead letter: there is nothing to redrive.'
      : 'The message could not be read, and its bytes may not be whole: there is nothing to redrive. It can be discarded.'
  return tooLarge(redrivenMessage(deadLetter, eventOf(deadLetter.id, to)))
}

/** What a decision publishes, the event first. */
function messagesOf(deadLetter: StoredDeadLetter, decision: Decision): Outgoing[] {
  const { id, user, operation } = deadLetter
  const { event, by, at } = decision
  const traceparent = headerText({ headers: headersOf(deadLetter) }, 'traceparent')
  const attributes = {
    id: event,
    time: at,
    subject: operation,
    // Whoever wrote the original may have put anything there.
    traceparent: traceparent && traceparent.length <= 256 ? traceparent : undefined,
  }
  const data = { user, deadLetter: id, by }
  if (decision.to === 'redriven')
    return [encode({ ...attributes, type: 'posta.dead-letter.redriven', data }), redrivenMessage(deadLetter, event)]
  const { reason } = decision
  const discarded = encode({ ...attributes, type: 'posta.dead-letter.discarded', data: { ...data, reason } })
  const request = requestOf(deadLetter)
  if (!request) return [discarded]
  const { user: owner, operation: abandoned, operationType } = request.data
  const abandon = encode({
    ...attributes,
    id: `${id}.abandoned`,
    type: 'posta.operation.abandoned',
    subject: abandoned,
    data: { user: owner, operation: abandoned, operationType, by, deadLetter: id },
  })
  return [discarded, abandon]
}

/** The request that processor set aside. Undefined where it is none, or one that processor could not read. */
function requestOf(deadLetter: StoredDeadLetter): Envelope<'posta.operation.requested'> | undefined {
  const { group, topic, partition, offset, timestampMs, original } = deadLetter
  if (group !== groups.processor || topic !== topics.requests) return undefined
  const [key, value] = [original.key, original.value].map((bytes) => (bytes === null ? null : bytesOf(bytes)))
  if (!key || !value) return undefined
  const headers = headersOf(deadLetter)
  const decoded = decode({ topic, partition, offset, timestampMs, key, value, headers })
  if (!('envelope' in decoded) || decoded.envelope.type !== 'posta.operation.requested') return undefined
  // Processor reads no request with another key, so no run can be stuck on it.
  return key.toString('utf8') === decoded.envelope.data.user ? decoded.envelope : undefined
}

const eventOf = (id: string, to: Choice['to']) => (to === 'redriven' ? redriveId(id) : `${id}.${to}`)

/** The original as it came, except for `ce_redrive`. */
function redrivenMessage(deadLetter: StoredDeadLetter, redrive: string): Outgoing {
  const { id, topic, original } = deadLetter
  return {
    topic,
    key: original.key === null ? id : bytesOf(original.key).toString('utf8'),
    value: bytesOf(original.value ?? ''),
    headers: [...headersOf(deadLetter).filter(([name]) => name !== 'ce_redrive'), ['ce_redrive', Buffer.from(redrive)]],
  }
}

function headersOf({ original }: StoredDeadLetter): Header[] {
  return original.headers.map(({ name, value }) => [name, bytesOf(value)])
}

const bytesOf = (base64: string) => Buffer.from(base64, 'base64')
