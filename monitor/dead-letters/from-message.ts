import { deadLetterId, decodeDeadLetter, idText, userByKey } from '@posta/common/messages/dead-letter.ts'
import { type Delivered, headerText } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import type { StoredDeadLetter } from './dead-letters.ts'

/** So much is kept of a message that cannot be read as a dead letter. It is never sent again, so nothing is lost by that. */
const UNREADABLE_BYTES = 64 * 1024
const PREVIEW_CHARACTERS = 500

/** The dead letter to keep for a message on the dead-letter topic, whoever wrote it. Never throws. */
export function toDeadLetter(message: Delivered, receivedAtMs: number): StoredDeadLetter {
  const decoded = decodeDeadLetter(message)
  // Redriven, a message of the dead-letter topic would come back as a dead letter, for ever.
  if (!decoded || decoded.original.topic === topics.deadLetters) return unreadable(message, receivedAtMs)
  const { id, group, reason, original } = decoded
  return {
    ...common(original, receivedAtMs),
    id,
    group,
    reason,
    redrivable: original.unreadable === undefined,
    original: inBase64(original),
  }
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
    reason: message.unreadable ?? 'It cannot be read as a dead letter: another program wrote it.',
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
    type: idText(headerText(original, 'ce_type')),
    user: idText(data.user) ?? userByKey(original),
    operation: idText(headerText(original, 'ce_subject')) ?? idText(data.operation),
    preview: text.slice(0, PREVIEW_CHARACTERS).toWellFormed(),
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

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

function inBase64({ key, value, headers }: Pick<Delivered, 'key' | 'value' | 'headers'>): StoredDeadLetter['original'] {
  return {
    key: key && base64(key),
    value: value && base64(value),
    headers: headers.map(([name, bytes]) => ({ name, value: base64(bytes) })),
  }
}
