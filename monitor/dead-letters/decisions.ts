import type { Broker } from '@posta/common/broker/broker.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { type Header, headerText, type Outgoing, sizeBytes } from '@posta/common/messages/message.ts'
import { topicSettings } from '@posta/common/messages/topics.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { DeadLetters, Decision, DecisionOn, StoredDeadLetter } from './dead-letters.ts'

/** What an operator wants done: send the message again, or never, and why. */
export type Choice = { readonly to: 'redriven' } | { readonly to: 'discarded'; readonly reason: string }

/** What came of it: decided now; decided so before; or not possible, and why. */
export type Outcome =
  | { readonly result: 'done' | 'already'; readonly deadLetter: StoredDeadLetter }
  | { readonly result: 'refused'; readonly deadLetter: StoredDeadLetter; readonly detail: string }

export interface Decisions {
  /**
   * Decides about one, and answers its state.
   * @throws Problem `not-found`; `conflict` where it was decided otherwise or cannot be done; `overloaded` while the
   * broker is down: then it is recorded, and will be carried out.
   */
  decide(asked: { readonly id: string; readonly by: string; readonly choice: Choice }): Promise<StoredDeadLetter>
  /** The same about several, with one publish for all. An outcome each, in their order. @throws Problem `overloaded` */
  decideAll(found: readonly StoredDeadLetter[], by: string, choice: Choice): Promise<Outcome[]>
  /** Publishes decisions that are recorded, and confirms them. A rejection may leave some of that done. */
  carryOut(recorded: readonly StoredDeadLetter[]): Promise<void>
}

/**
 * Decisions about dead letters. A redrive sends the message again, a discard does not; either is an event with who asked.
 *
 * However often one is asked for, by how many, and whatever crashes in between, it has its effect once: the first
 * decision is recorded before anything is published, and no other is possible after it; the id of its event, which a
 * redriven message carries as `ce_redrive`, follows from the dead letter's; and until the broker has confirmed both, the
 * same is published again by finish.ts. Who asks for a redrive again has the same sent again: that mends what was lost
 * with its topic, and changes nothing otherwise.
 */
export function createDecisions(parts: {
  deadLetters: Pick<DeadLetters, 'get' | 'find' | 'decide' | 'confirm'>
  broker: Pick<Broker, 'publish'>
  deps: Pick<Deps, 'now'>
}): Decisions {
  const { deadLetters, broker, deps } = parts
  /** By dead letter: who asks for what is just being published waits for that. */
  const underWay = new Map<string, Promise<void>>()

  async function publish(recorded: readonly StoredDeadLetter[]): Promise<void> {
    const messages = recorded.flatMap((each) => (each.decision ? messagesOf(each, each.decision) : []))
    if (messages.length > 0) await broker.publish(messages)
    await deadLetters.confirm(recorded.flatMap(({ id, decision }) => (decision ? [{ id, decision }] : [])))
  }

  async function carryOut(recorded: readonly StoredDeadLetter[]): Promise<void> {
    const fresh = recorded.filter(({ id }) => !underWay.has(id))
    if (fresh.length > 0) {
      const published = publish(fresh).finally(() => {
        for (const { id } of fresh) underWay.delete(id)
      })
      for (const { id } of fresh) underWay.set(id, published)
    }
    await Promise.all(new Set(recorded.map(({ id }) => underWay.get(id))))
  }

  async function decideAll(found: readonly StoredDeadLetter[], by: string, choice: Choice): Promise<Outcome[]> {
    const at = new Date(deps.now()).toISOString()
    const proposed = found
      .filter((each) => !each.decision && obstacleTo(each, choice) === undefined)
      .map(({ id }): DecisionOn => ({ id, decision: { event: eventOf(id, choice.to), by, at, ...choice } }))
    const decidedNow = await deadLetters.decide(proposed)
    const standing = await deadLetters.find(proposed.map(({ id }) => id))
    const outcomes = found.map((before): Outcome => {
      const deadLetter = standing.get(before.id) ?? before
      const detail = obstacleTo(deadLetter, choice)
      if (detail !== undefined) return { result: 'refused', deadLetter, detail }
      return { result: decidedNow.has(before.id) ? 'done' : 'already', deadLetter }
    })
    await carryOutNow(
      outcomes.flatMap(({ result, deadLetter }) =>
        result !== 'refused' && deadLetter.status !== 'discarded' ? [deadLetter] : [],
      ),
    )
    return outcomes.map((outcome) =>
      outcome.result === 'refused' ? outcome : { ...outcome, deadLetter: { ...outcome.deadLetter, status: choice.to } },
    )
  }

  async function carryOutNow(recorded: readonly StoredDeadLetter[]): Promise<void> {
    if (recorded.length === 0) return
    try {
      await carryOut(recorded)
    } catch (error) {
      const detail = recorded.some(({ status }) => status === 'open')
        ? 'It is recorded, and will be carried out as soon as the broker takes messages. Asking again is safe.'
        : 'It was sent before. To have it sent again, ask again once the broker takes messages.'
      throw new Problem('overloaded', detail, { retryAfterS: 5, cause: error })
    }
  }

  return {
    async decide({ id, by, choice }) {
      const found = await deadLetters.get(id)
      if (!found) throw new Problem('not-found', 'There is no such dead letter.')
      const [outcome] = await decideAll([found], by, choice)
      if (!outcome) throw new Error('A dead letter was decided about without an outcome.')
      if (outcome.result === 'refused') throw new Problem('conflict', outcome.detail)
      return outcome.deadLetter
    },
    decideAll,
    carryOut,
  }
}

/** Why a choice is not possible, for people; undefined where it is, or was made. */
function obstacleTo(deadLetter: StoredDeadLetter, { to }: Choice): string | undefined {
  const { decision, redrivable } = deadLetter
  if (decision) return decision.to === to ? undefined : `It was ${decision.to} by ${decision.by} at ${decision.at}.`
  if (to === 'discarded') return undefined
  if (!redrivable) return 'It cannot be read as a dead letter: there is nothing to redrive.'
  const bytes = sizeBytes(again(deadLetter, eventOf(deadLetter.id, to)))
  const limitBytes = topicSettings[deadLetter.topic].maxMessageBytes
  if (bytes > limitBytes)
    return `Its message would have ${bytes} bytes with its headers; at most ${limitBytes} fit on ${deadLetter.topic}.`
  return undefined
}

/** What a decision makes known, the event first. */
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
    return [encode({ ...attributes, type: 'posta.dead-letter.redriven', data }), again(deadLetter, event)]
  const { reason } = decision
  return [encode({ ...attributes, type: 'posta.dead-letter.discarded', data: { ...data, reason } })]
}

const eventOf = (id: string, to: Choice['to']) => `${id}.${to}`

/** The original as it came, but for `ce_redrive`. */
function again(deadLetter: StoredDeadLetter, redrive: string): Outgoing {
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
