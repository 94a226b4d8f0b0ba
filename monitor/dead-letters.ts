import { type Broker, type Delivered, headerText, MessageTooLarge } from '@posta/common/broker/broker.ts'
import { deadLetterId, decodeDeadLetter } from '@posta/common/messages/dead-letter.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { topics } from '@posta/common/messages/topics.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { DeadLetters, StoredDeadLetter } from './events/events.ts'

/** Of what could not even be read as a dead letter so much is kept. It cannot be sent on, so that nothing is lost by it. */
const UNREADABLE_BYTES = 64 * 1024
const PREVIEW_CHARACTERS = 500

/** What to keep of a message on the topic of dead letters, whoever wrote it. Never throws. */
export function toDeadLetter(message: Delivered, receivedAtMs: number): StoredDeadLetter {
  const decoded = decodeDeadLetter(message)
  // A dead letter of this very topic would come back each time that it is sent on.
  if (!decoded || decoded.original.topic === topics.deadLetters) return unreadable(message, receivedAtMs)
  const { id, group, reason, original } = decoded
  return { ...common(original, receivedAtMs), id, group, reason, redrivable: true, original: inBase64(original) }
}

function unreadable(message: Delivered, receivedAtMs: number): StoredDeadLetter {
  const { key, value, headers } = message
  let leftBytes = UNREADABLE_BYTES
  const fits = (bytes: Uint8Array) => {
    const part = bytes.subarray(0, leftBytes)
    leftBytes -= part.byteLength
    return part
  }
  const kept = {
    key: key && fits(key),
    headers: headers.slice(0, 100).map(([name, bytes]) => [name.slice(0, 256), fits(bytes)] as const),
    value: value && fits(value),
  }
  return {
    ...common(message, receivedAtMs),
    id: deadLetterId(message),
    group: undefined,
    reason: 'It cannot be read as a dead letter: another program wrote it.',
    redrivable: false,
    original: inBase64(kept),
  }
}

function common(original: Delivered, receivedAtMs: number) {
  const { topic, partition, offset, timestampMs } = original
  const text = Buffer.from(original.value ?? []).toString('utf8')
  const data = dataOf(text)
  return {
    status: 'open' as const,
    receivedAtMs,
    topic,
    partition,
    offset,
    timestampMs,
    type: short(headerText(original, 'ce_type')),
    user: short(data.user) ?? userByKey(original),
    operation: short(headerText(original, 'ce_subject')) ?? short(data.operation),
    preview: text.slice(0, PREVIEW_CHARACTERS).toWellFormed(),
    redrive: undefined,
  }
}

function dataOf(text: string): { readonly user?: unknown; readonly operation?: unknown } {
  try {
    const data: unknown = JSON.parse(text)
    return typeof data === 'object' && data !== null ? data : {}
  } catch {
    return {}
  }
}

/** Requests and results have the user's id as key; elsewhere it may be anything. */
function userByKey({ topic, key }: Delivered): string | undefined {
  return topic === topics.requests || topic === topics.results
    ? short(key && Buffer.from(key).toString('utf8'))
    : undefined
}

/** What fits where the messages have ids. */
function short(value: unknown): string | undefined {
  return typeof value === 'string' && value.length > 0 && value.length <= 256 ? value : undefined
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

function inBase64({ key, value, headers }: Pick<Delivered, 'key' | 'value' | 'headers'>): StoredDeadLetter['original'] {
  return {
    key: key && base64(key),
    value: value && base64(value),
    headers: headers.map(([name, bytes]) => ({ name, value: base64(bytes) })),
  }
}

export type Redrive = (asked: { readonly id: string; readonly by: string }) => Promise<StoredDeadLetter>

/**
 * Sends a dead letter's message again, with the event that says so, and answers the dead letter's state.
 *
 * However often it is asked for, and whatever crashes in between, it has its effect once: the id of the event, which the
 * message carries as `ce_redrive`, follows from the dead letter's; who asked first is recorded before anything is
 * published; and until the broker has confirmed both, asking again publishes the same again.
 *
 * @throws Problem `not-found`; `conflict` where there is nothing that could be sent; `overloaded` while the broker is down.
 */
export function createRedrive(parts: { deadLetters: DeadLetters; broker: Broker; deps: Pick<Deps, 'now'> }): Redrive {
  const { deadLetters, broker, deps } = parts
  return async ({ id, by }) => {
    const found = await deadLetters.get(id)
    if (!found) throw new Problem('not-found', 'There is no such dead letter.')
    if (!found.redrivable)
      throw new Problem('conflict', 'It cannot be read as a dead letter: there is nothing to redrive.')
    if (found.status === 'discarded') throw new Problem('conflict', 'It was discarded.')
    if (found.status === 'redriven') return found
    const at = new Date(deps.now()).toISOString()
    const recorded = await deadLetters.recordRedrive(id, { event: `${id}.redriven`, by, at })
    if (!recorded?.redrive) throw new Error('A redrive was recorded and is not there.')
    try {
      await broker.publish(messagesOf(recorded, recorded.redrive))
    } catch (error) {
      if (error instanceof MessageTooLarge) throw new Problem('conflict', error.message)
      throw new Problem('overloaded', 'The broker does not take messages at the moment. Ask for the redrive again.', {
        retryAfterS: 5,
        cause: error,
      })
    }
    return (await deadLetters.confirmRedrive(id)) ?? recorded
  }
}

function messagesOf(deadLetter: StoredDeadLetter, redrive: NonNullable<StoredDeadLetter['redrive']>) {
  const { id, topic, user, operation, original } = deadLetter
  const bytes = (text: string) => Buffer.from(text, 'base64')
  const headers = original.headers
    .filter(({ name }) => name !== 'ce_redrive')
    .map(({ name, value }) => [name, bytes(value)] as const)
  const event = encode({
    id: redrive.event,
    type: 'posta.dead-letter.redriven',
    time: redrive.at,
    subject: operation,
    traceparent: headerText({ headers }, 'traceparent'),
    data: { user, deadLetter: id, by: redrive.by },
  })
  const again = {
    topic,
    key: original.key === null ? id : bytes(original.key).toString('utf8'),
    value: bytes(original.value ?? ''),
    headers: [...headers, ['ce_redrive', Buffer.from(redrive.event)] as const],
  }
  return [event, again]
}
