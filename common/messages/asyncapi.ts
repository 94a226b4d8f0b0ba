import { toJsonSchema } from '@valibot/to-json-schema'
import { TITLE } from '../name.ts'
import { DEAD_LETTER_PREFIX } from './dead-letter.ts'
import { typesOn } from './envelope.ts'
import { dataschema, type MessageType, messages, sourceOf } from './events.ts'
import { groups, type Topic, topicSettings, topics } from './topics.ts'

const DEAD_LETTER = 'dead-letter'

const channels: Readonly<Record<Topic, { description: string; readers: readonly string[] }>> = {
  [topics.requests]: {
    description:
      'The operations that processor shall perform, the cancels and answers that came for them, and, from monitor, which of them an operator gave up.',
    readers: [groups.processor, groups.monitor],
  },
  [topics.results]: {
    description: 'The outcomes of operations, and the progress of those that are done in steps.',
    readers: [groups.gateway, groups.monitor],
  },
  [topics.events]: { description: 'Events that no other message tells of.', readers: [groups.monitor] },
  [topics.deadLetters]: {
    description: `Messages that a group could not handle: the original bytes and headers, and the facts in \`${DEAD_LETTER_PREFIX}*\` headers.`,
    readers: [groups.monitor],
  },
}

const text = (description: string, more: object = {}) => ({ type: 'string', description, ...more })

/** The headers of an event, by the Kafka protocol binding of CloudEvents 1.0, section 3.2 (binary mode). */
function eventHeaders(type: MessageType) {
  return {
    type: 'object',
    required: ['ce_specversion', 'ce_id', 'ce_source', 'ce_type', 'ce_time', 'content-type'],
    properties: {
      ce_specversion: { const: '1.0' },
      ce_id: text('Stays the same if the message is sent again.'),
      ce_source: { const: sourceOf(type) },
      ce_type: { const: type },
      ce_dataschema: { const: dataschema(type) },
      ce_time: text('When it happened.', { format: 'date-time' }),
      ce_subject: text("The operation's id, if it is about one."),
      ce_redrive: text("The id of the redrive's event, if a redrive caused the message."),
      'content-type': { const: 'application/json' },
      traceparent: text('W3C Trace Context.'),
    },
  }
}

const withPrefix = (headers: object) =>
  Object.fromEntries(Object.entries(headers).map(([name, schema]) => [DEAD_LETTER_PREFIX + name, schema]))

const deadLetterHeaders = withPrefix({
  id: text(
    `Follows from the original's position and time, and from \`${DEAD_LETTER_PREFIX}occurrence\` where there is one.`,
  ),
  group: text('The group that could not handle the original.'),
  reason: text('Why, in a sentence.'),
  topic: text("The original's topic."),
  partition: text("The original's partition."),
  offset: text("The original's offset."),
  timestamp: text("The original's timestamp, in ms since the epoch."),
})

const message = (name: string, contentType: string, headers: object, payload: object) => ({
  name,
  contentType,
  headers,
  payload,
  bindings: { kafka: { key: { type: 'string' } } },
})

const ref = (path: string) => ({ $ref: `#/${path}` })

/** The AsyncAPI 3.0 document of every topic and message, made from the schemas that validate at run time. */
export function asyncApi() {
  const addresses = Object.values(topics)
  const namesOn = (topic: Topic) => (topic === topics.deadLetters ? [DEAD_LETTER] : typesOn(topic))
  return {
    asyncapi: '3.0.0',
    info: {
      title: TITLE,
      version: '1.0.0',
      description:
        "Messages are CloudEvents 1.0 in Kafka's binary mode. The key is the user's id, so that one user's messages keep their order. A message of no user has the event's id as key.",
    },
    defaultContentType: 'application/json',
    channels: Object.fromEntries(
      addresses.map((address) => [
        address,
        {
          address,
          description: channels[address].description,
          messages: Object.fromEntries(namesOn(address).map((name) => [name, ref(`components/messages/${name}`)])),
          bindings: { kafka: { topic: address, partitions: topicSettings[address].partitions } },
        },
      ]),
    ),
    operations: Object.fromEntries(
      addresses.flatMap((address) => {
        const channel = ref(`channels/${address}`)
        return [
          [`send ${address}`, { action: 'send', channel }],
          ...channels[address].readers.map((group) => [
            `${group} receives ${address}`,
            { action: 'receive', channel, bindings: { kafka: { groupId: { type: 'string', const: group } } } },
          ]),
        ]
      }),
    ),
    components: {
      messages: {
        ...Object.fromEntries(
          addresses.flatMap(typesOn).map((type) => {
            const payload = toJsonSchema(messages[type].data, { typeMode: 'input', errorMode: 'ignore' })
            return [type, message(type, 'application/json', eventHeaders(type), payload)]
          }),
        ),
        [DEAD_LETTER]: message(
          DEAD_LETTER,
          'application/octet-stream',
          {
            type: 'object',
            required: Object.keys(deadLetterHeaders),
            properties: {
              ...deadLetterHeaders,
              ...withPrefix({
                key: text("The original's key. Absent if it had none."),
                value: text('`null` if the original had no value.'),
                unreadable: text(
                  '`true` if no client could read the original: the value is the first 64 KiB of its bytes.',
                ),
                occurrence: text('Of a run that is stuck: the number of its record.'),
              }),
            },
          },
          {},
        ),
      },
    },
  }
}
