import { toJsonSchema } from '@valibot/to-json-schema'
import { typesOn } from './envelope.ts'
import { type MessageType, messages, sources } from './events.ts'
import { groups, type Topic, topicSettings, topics } from './topics.ts'

const attribute = (description: string, more: object = {}) => ({ type: 'string', description, ...more })

/** The headers of CloudEvents' Kafka protocol binding, binary mode. */
function headersOf(type: MessageType) {
  return {
    type: 'object',
    required: ['ce_specversion', 'ce_id', 'ce_source', 'ce_type', 'ce_time', 'content-type'],
    properties: {
      ce_specversion: { const: '1.0' },
      ce_id: attribute('The same when the message is sent again.'),
      ce_source: { const: sources[messages[type].topic] },
      ce_type: { const: type },
      ce_time: attribute('When it happened.', { format: 'date-time' }),
      ce_subject: attribute("The operation's id, where there is one."),
      ce_redrive: attribute('On what a redrive caused: the id of its event.'),
      'content-type': { const: 'application/json' },
      traceparent: attribute('W3C Trace Context.'),
    },
  }
}

const words: Readonly<Record<Topic, { description: string; readers: readonly string[] }>> = {
  [topics.requests]: { description: 'What processor is asked to do.', readers: [groups.processor, groups.monitor] },
  [topics.results]: { description: 'What came of it.', readers: [groups.gateway, groups.monitor] },
  [topics.events]: { description: 'What happened and is in no other message.', readers: [groups.monitor] },
  [topics.deadLetters]: {
    description:
      'Messages that a group could not handle: the original bytes and headers, and the facts in `posta-*` headers.',
    readers: [groups.monitor],
  },
}

/** The document of every topic and message, AsyncAPI 3.0, made from the schemas that validate at run time. */
export function asyncApi() {
  const addresses = Object.values(topics)
  const ref = (path: string) => ({ $ref: `#/${path}` })
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Posta',
      version: '1.0.0',
      description:
        "Messages are CloudEvents 1.0 in Kafka's binary mode. The key is the user's id, so that one user's messages keep their order, or else the event's id.",
    },
    defaultContentType: 'application/json',
    channels: Object.fromEntries(
      addresses.map((address) => [
        address,
        {
          address,
          description: words[address].description,
          messages: Object.fromEntries(
            [...typesOn(address), ...(address === topics.deadLetters ? ['dead-letter'] : [])].map((type) => [
              type,
              ref(`components/messages/${type}`),
            ]),
          ),
          bindings: { kafka: { topic: address, partitions: topicSettings[address].partitions } },
        },
      ]),
    ),
    operations: Object.fromEntries(
      addresses.flatMap((address) => [
        [`send ${address}`, { action: 'send', channel: ref(`channels/${address}`) }],
        ...words[address].readers.map((group) => [
          `${group} receives ${address}`,
          {
            action: 'receive',
            channel: ref(`channels/${address}`),
            bindings: { kafka: { groupId: { type: 'string', const: group } } },
          },
        ]),
      ]),
    ),
    components: {
      messages: {
        ...Object.fromEntries(
          addresses.flatMap(typesOn).map((type) => [
            type,
            {
              name: type,
              contentType: 'application/json',
              headers: headersOf(type),
              payload: toJsonSchema(messages[type].data, { typeMode: 'input', errorMode: 'ignore' }),
              bindings: { kafka: { key: { type: 'string' } } },
            },
          ]),
        ),
        'dead-letter': {
          name: 'dead-letter',
          contentType: 'application/octet-stream',
          headers: {
            type: 'object',
            required: [
              'posta-id',
              'posta-group',
              'posta-reason',
              'posta-topic',
              'posta-partition',
              'posta-offset',
              'posta-timestamp',
            ],
            properties: {
              'posta-id': attribute('The same however often the original is set aside.'),
              'posta-group': attribute('The group that could not handle it.'),
              'posta-reason': attribute('Why, in a sentence.'),
              'posta-topic': attribute('Where the original stands.'),
              'posta-partition': attribute('Its partition.'),
              'posta-offset': attribute('Its offset.'),
              'posta-timestamp': attribute('Its timestamp, in ms since the epoch.'),
              'posta-key': attribute("The original's key, absent where it had none."),
              'posta-value': attribute('`null` where the original had no value.'),
            },
          },
          payload: {},
          bindings: { kafka: { key: { type: 'string' } } },
        },
      },
    },
  }
}
