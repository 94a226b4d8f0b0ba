import { NAME } from '../name.ts'

/** What a topic is created with. Its partition count cannot change later. */
interface TopicSettings {
  readonly partitions: number
  readonly retentionMs: number
  readonly maxMessageBytes: number
  readonly maxHeaders: number
}

const DAY_MS = 24 * 60 * 60 * 1000

export const topics = {
  requests: `${NAME}.requests`,
  results: `${NAME}.results`,
  events: `${NAME}.events`,
  deadLetters: `${NAME}.dead-letters`,
} as const
export type Topic = (typeof topics)[keyof typeof topics]

/** Of any topic. */
export const MAX_HEADERS = 512

const usual: TopicSettings = { partitions: 6, retentionMs: 7 * DAY_MS, maxMessageBytes: 1024 * 1024, maxHeaders: 256 }

export const topicSettings: Readonly<Record<Topic, TopicSettings>> = {
  [topics.requests]: usual,
  [topics.results]: usual,
  [topics.events]: usual,
  // More than the others, since a dead letter holds a whole message and the facts about it.
  [topics.deadLetters]: {
    ...usual,
    partitions: 1,
    retentionMs: 30 * DAY_MS,
    maxMessageBytes: 2 * 1024 * 1024,
    maxHeaders: MAX_HEADERS,
  },
}

export const groups = {
  gateway: `${NAME}.gateway`,
  processor: `${NAME}.processor`,
  monitor: `${NAME}.monitor`,
} as const
export type Group = (typeof groups)[keyof typeof groups]
