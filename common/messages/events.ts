import * as v from 'valibot'
import { NAME, serviceNames } from '../name.ts'
import { operationTypes } from '../operations/catalog.ts'
import { problemCodes } from '../service/problem.ts'
import { type Topic, topics } from './topics.ts'

const Id = v.pipe(v.string(), v.minLength(1), v.maxLength(256))
const Time = v.pipe(v.string(), v.maxLength(64), v.isoTimestamp())
const Text = v.pipe(v.string(), v.maxLength(2000))
/** What the operation's contract has a schema for. */
const Members = v.record(v.string(), v.unknown())

const OperationRef = { user: Id, operation: Id, operationType: v.picklist(operationTypes) }

const Position = { topic: v.picklist(Object.values(topics)), partition: v.number(), offset: v.number() }

/** The client's network: the /24 of an IPv4 address, the /48 of an IPv6 one. See `eventNetwork`. */
const network = v.optional(v.pipe(v.string(), v.maxLength(64)))

const Session = v.object({ user: Id, session: Id, network })

/** How often something was refused, and between which times. Refusals alike within some seconds are one event. */
const Tally = { count: v.pipe(v.number(), v.safeInteger(), v.minValue(1)), from: Time, to: Time }

/**
 * All messages: the topic and the schema of the data of each. Consumers ignore unknown members, so that services of two
 * versions work together. Data holds user ids, never an email or a secret.
 */
export const messages = {
  /** Has everything that processor needs to perform the operation. */
  'posta.operation.requested': {
    topic: topics.requests,
    data: v.object({ ...OperationRef, input: Members, facts: v.optional(Members), createdAt: Time }),
  },
  'posta.operation.succeeded': {
    topic: topics.results,
    data: v.object({ ...OperationRef, output: Members, createdAt: Time, completedAt: Time }),
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
  /**
   * Tells of a step that is done or undone, or of a wait that begins. `n` numbers what the operation records. Of a wait:
   * `until` when it ends at the latest, and `forSignal` if it is for an answer.
   */
  'posta.operation.progressed': {
    topic: topics.results,
    data: v.object({
      ...OperationRef,
      n: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
      step: v.pipe(v.string(), v.maxLength(100)),
      status: v.picklist(['done', 'undone', 'waiting']),
      at: Time,
      until: v.optional(Time),
      forSignal: v.optional(v.boolean()),
    }),
  },
  /** `user`: the operation's owner. `by`: who asks. */
  'posta.operation.cancel-requested': { topic: topics.requests, data: v.object({ ...OperationRef, by: Id }) },
  'posta.operation.signalled': {
    topic: topics.requests,
    data: v.object({ ...OperationRef, by: Id, signal: v.pipe(Id, v.maxLength(100)), payload: Members }),
  },
  /** An operator discarded the dead letter of the operation's run: the operation fails. */
  'posta.operation.abandoned': {
    topic: topics.requests,
    data: v.object({ ...OperationRef, by: Id, deadLetter: Id }),
  },
  'posta.user.registered': { topic: topics.events, data: v.object({ user: Id, network }) },
  'posta.user.logged-in': { topic: topics.events, data: Session },
  /** Without `user` if there is no such user. */
  'posta.user.login-failed': {
    topic: topics.events,
    data: v.object({
      user: v.optional(Id),
      reason: v.picklist(['unknown-user', 'wrong-password', 'disabled']),
      network,
    }),
  },
  /**
   * Attempts that were refused before any password was looked at. Without `network` or `user`: those of more users and
   * networks than are told apart, or of an email that no user has.
   */
  'posta.attempts.throttled': {
    topic: topics.events,
    data: v.object({
      user: v.optional(Id),
      what: v.picklist(['login', 'registration', 'password-change']),
      network,
      ...Tally,
    }),
  },
  /** `user`: who asked for what only others may do. Without it: users beyond those that are told apart. */
  'posta.request.forbidden': {
    topic: topics.events,
    data: v.object({
      user: v.optional(Id),
      service: v.picklist(serviceNames),
      method: v.pipe(v.string(), v.maxLength(16)),
      route: v.pipe(v.string(), v.maxLength(200)),
      network,
      ...Tally,
    }),
  },
  'posta.user.logged-out': { topic: topics.events, data: Session },
  'posta.user.password-changed': { topic: topics.events, data: v.object({ user: Id, network }) },
  /** By an operator of gateway, with `bun run users`: also where a user is added who is an operator. */
  'posta.user.role-changed': {
    topic: topics.events,
    data: v.object({ user: Id, role: v.picklist(['user', 'operator']) }),
  },
  'posta.user.disabled': { topic: topics.events, data: v.object({ user: Id }) },
  'posta.user.enabled': { topic: topics.events, data: v.object({ user: Id }) },
  'posta.session.refreshed': { topic: topics.events, data: Session },
  /** A refresh token was presented again within 30 s, and got the same successor: an answer was lost, or two hold it. */
  'posta.session.repeated': { topic: topics.events, data: Session },
  /** The session has ended. `other-device`: within 30 s, but not from the device that used the token. */
  'posta.session.reuse-detected': {
    topic: topics.events,
    data: v.object({ ...Session.entries, reason: v.optional(v.picklist(['used-before', 'other-device'])) }),
  },
  /** `by`: the operator. New runs of the type wait from now on. */
  'posta.runs.paused': { topic: topics.events, data: v.object({ operationType: v.picklist(operationTypes), by: Id }) },
  'posta.runs.resumed': { topic: topics.events, data: v.object({ operationType: v.picklist(operationTypes), by: Id }) },
  /** `kid`: the key that signs from now on. */
  'posta.key.rotated': { topic: topics.events, data: v.object({ kid: Id }) },
  /** `kid`: the key that counts no more. */
  'posta.key.revoked': { topic: topics.events, data: v.object({ kid: Id }) },
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

/** Counts every change of a message's schema. A change only adds optional members: see CONTRIBUTING.md. */
const SCHEMA_VERSION = 2

/** The `dataschema` of CloudEvents: which schema, and which version of it, a message was written by. */
export function dataschema(type: MessageType): string {
  return `urn:${NAME}:schema:${type}:${SCHEMA_VERSION}`
}

/** Who writes the events of each topic. Those of two topics come from any of the services. */
const writers: Readonly<Record<Topic, string>> = {
  [topics.requests]: `/${NAME}/gateway`,
  [topics.results]: `/${NAME}/processor`,
  [topics.events]: `/${NAME}`,
  [topics.deadLetters]: `/${NAME}`,
}

/** The `source` of CloudEvents: the service that made the event. A redriven message keeps that of the original. */
export function sourceOf(type: MessageType): string {
  return type === 'posta.operation.abandoned' ? `/${NAME}/monitor` : writers[messages[type].topic]
}
