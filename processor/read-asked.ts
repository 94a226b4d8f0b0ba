import { type AnyEnvelope, decode, type Envelope } from '@posta/common/messages/envelope.ts'
import { type MessageData, messages } from '@posta/common/messages/events.ts'
import type { Delivered } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import type { Contracts, OperationType } from '@posta/common/operations/catalog.ts'
import * as v from 'valibot'
import { abandonInput, CANCEL, type NewRun, type RunInput, signalInput } from './runs/runs.ts'

/** What gateway asks processor to do. */
export interface Request {
  /** The operation's id. */
  readonly id: string
  readonly user: string
  readonly type: OperationType
  /** Input and facts as they came. Whether they fit the contract is checked when the operation is performed. */
  readonly input: Readonly<Record<string, unknown>>
  readonly facts: Readonly<Record<string, unknown>> | undefined
  readonly createdAt: string
  readonly redrive: string | undefined
  readonly traceparent: string | undefined
  readonly position: NewRun['position']
}

/** What a message on the topic of requests asks for: an operation, or that its run is told something. */
export type Asked =
  | { readonly request: Request }
  | { readonly input: Omit<RunInput, 'atMs'>; readonly type: OperationType }

/** Ids become keys of stores and parts of other ids: short, and of characters that every store compares alike. */
const ID = /^[\x21-\x7e]{1,100}$/

export function readAsked(
  message: Delivered,
  contracts: Contracts,
): { readonly item: Asked } | { readonly unreadable: string } {
  const decoded = decode(message)
  if ('unreadable' in decoded) return decoded
  const { envelope } = decoded
  if (!isAsked(envelope)) return { unreadable: 'It is not a request.' }
  const { operation: id, user, operationType: type } = envelope.data
  const redrive = envelope.redrive ?? id
  if (![id, user, redrive].every((text) => ID.test(text)))
    return { unreadable: 'One of its ids is not 1 to 100 visible ASCII characters.' }
  // The key decides the partition. Order and limit rely on each user having one partition.
  if (Buffer.from(message.key ?? []).toString() !== user) return { unreadable: "Its key is not the user's id." }
  if (envelope.type !== 'posta.operation.requested') {
    const fault = envelope.type === 'posta.operation.signalled' ? faultOfSignal(envelope.data, contracts) : undefined
    return fault === undefined ? { item: { input: toInput(envelope), type } } : { unreadable: fault }
  }
  const { input, facts, createdAt } = envelope.data
  if (Number.isNaN(Date.parse(createdAt))) return { unreadable: 'Its createdAt is not a time that exists.' }
  const { partition, offset, timestampMs } = message
  const position = { partition, offset, timestampMs }
  const { traceparent } = envelope
  return {
    item: { request: { id, user, type, input, facts, createdAt, redrive: envelope.redrive, traceparent, position } },
  }
}

type Told = Extract<
  AnyEnvelope,
  { type: 'posta.operation.cancel-requested' | 'posta.operation.signalled' | 'posta.operation.abandoned' }
>

function isAsked(envelope: AnyEnvelope): envelope is Told | Envelope<'posta.operation.requested'> {
  return messages[envelope.type].topic === topics.requests
}

/** Gateway checks this, too. Whoever can write to the broker shall not approve by it what they could not there. */
function faultOfSignal(
  { operationType, signal, payload, user, by }: MessageData<'posta.operation.signalled'>,
  contracts: Contracts,
) {
  const { signals = {} } = contracts[operationType]
  const known = Object.hasOwn(signals, signal) ? signals[signal] : undefined
  if (!known) return `${operationType} has no signal of this name.`
  if ((known.from === 'owner') !== (by === user)) return `The signal is to be given by an ${known.from}.`
  return v.is(known.payload, payload) ? undefined : `The payload does not fit the signal of ${operationType}.`
}

function toInput(envelope: Told): Omit<RunInput, 'atMs'> {
  const { operation: run, user, by } = envelope.data
  if (envelope.type === 'posta.operation.cancel-requested') return { run, user, name: CANCEL, by }
  if (envelope.type === 'posta.operation.abandoned')
    return { run, user, name: abandonInput(envelope.data.deadLetter), by }
  const { signal, payload } = envelope.data
  return { run, user, name: signalInput(signal), by, payload }
}
