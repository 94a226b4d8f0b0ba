import * as v from 'valibot'
import { NAME } from '../name.ts'
import { operationTypes } from '../operations/catalog.ts'
import { RateTable } from '../operations/rates.ts'
import { problemCodes } from '../service/problem.ts'
import { type Topic, topics } from './topics.ts'

const Id = v.pipe(v.string(), v.minLength(1), v.maxLength(256))
const Time = v.pipe(v.string(), v.maxLength(64), v.isoTimestamp())
const Text = v.pipe(v.string(), v.maxLength(2000))

const OperationRef = { user: Id, operation: Id, operationType: v.picklist(operationTypes) }

const Position = { topic: v.picklist(Object.values(topics)), partition: v.number(), offset: v.number() }

const Session = v.object({ user: Id, session: Id })

/**
 * All messages: the topic and the schema of the data of each. Consumers ignore unknown members, so that services of two
 * versions work together. Data holds user ids, never an email or a secret.
 */
export const messages = {
  /** Has everything that processor needs to perform the operation. */
  'posta.operation.requested': {
    topic: topics.requests,
    data: v.object({ ...OperationRef, input: v.record(v.string(), v.unknown()), rates: RateTable, createdAt: Time }),
  },
  'posta.operation.succeeded': {
    topic: topics.results,
    data: v.object({ ...OperationRef, output: v.record(v.string(), v.unknown()), createdAt: Time, completedAt: Time }),
  },
  'posta.operation.failed': {
    topic: topics.results,
    data: v.object({
      ...OperationRef,
      error: v.object({ code: v.picklist(problemCodes), message: Text }),
      createdAt: Time,
      completedAt: Time,
    }),
  },
  'posta.user.registered': { topic: topics.events, data: v.object({ user: Id }) },
  'posta.user.logged-in': { topic: topics.events, data: Session },
  /** Without `user` if there is no such user. */
  'posta.user.login-failed': {
    topic: topics.events,
    data: v.object({ user: v.optional(Id), reason: v.picklist(['unknown-user', 'wrong-password', 'disabled']) }),
  },
  'posta.user.logged-out': { topic: topics.events, data: Session },
  'posta.user.password-changed': { topic: topics.events, data: v.object({ user: Id }) },
  'posta.session.refreshed': { topic: topics.events, data: Session },
  'posta.session.reuse-detected': { topic: topics.events, data: Session },
  'posta.key.rotated': { topic: topics.events, data: v.object({ kid: Id }) },
  'posta.message.dead-lettered': {
    topic: topics.events,
    data: v.object({ user: v.optional(Id), deadLetter: Id, group: Id, ...Position, reason: Text }),
  },
  /** `by`: the user id of the operator. `user`: whose message it was. */
  'posta.dead-letter.redriven': {
    topic: topics.events,
    data: v.object({ user: v.optional(Id), deadLetter: Id, by: Id }),
  },
  'posta.dead-letter.discarded': {
    topic: topics.events,
    data: v.object({ user: v.optional(Id), deadLetter: Id, by: Id, reason: Text }),
  },
} as const

export type MessageType = keyof typeof messages
export type MessageData<Type extends MessageType> = v.InferOutput<(typeof messages)[Type]['data']>

/** The `source` of CloudEvents: who writes each topic. */
export const sources: Readonly<Record<Topic, string>> = {
  [topics.requests]: `/${NAME}/gateway`,
  [topics.results]: `/${NAME}/processor`,
  [topics.events]: `/${NAME}`,
  [topics.deadLetters]: `/${NAME}`,
}
