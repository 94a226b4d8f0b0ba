import type { Kafka, Producer } from 'kafkajs'
import { MongoClient } from 'mongodb'
import { eventually } from '../../common/testing/eventually.ts'
import { kafkaClient } from '../testing/foreign-client.ts'
import type { Parts } from '../testing/parts.ts'

export interface Echo {
  /** Resolves when a message went over one topic, another one came back over a second, and a document is inserted. */
  thereAndBack(): Promise<void>
  close(): Promise<void>
}

/** About as large as a request. */
const PAYLOAD = 'x'.repeat(600)

/** The least that a reply over Kafka with a stored result needs: kafkajs and the mongodb driver, no more. */
export async function openEcho({ environment }: Pick<Parts, 'environment'>): Promise<Echo> {
  const kafka = kafkaClient(environment.BROKER_URL ?? '')
  const name = `bench-${Bun.randomUUIDv7()}`
  const [there, back] = [`${name}-there`, `${name}-back`]
  const mongo = await new MongoClient(environment.PROCESSOR_STORE_URL ?? '').connect()
  const documents = mongo.db().collection('bench', { writeConcern: { w: 'majority', journal: true } })

  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: there }, { topic: back }], waitForLeaders: false })
  // Kafka refuses to tell of a topic for a moment after it is created.
  await eventually(() =>
    admin.fetchTopicMetadata({ topics: [there, back] }).then(
      () => true,
      () => false,
    ),
  )
  const producer = kafka.producer({ allowAutoTopicCreation: false })
  await producer.connect()
  let arrived: (() => void) | undefined
  const consumers = [
    await consume(kafka, there, () => send(producer, back)),
    await consume(kafka, back, async () => arrived?.()),
  ]

  return {
    async thereAndBack() {
      const came = Promise.withResolvers<void>()
      arrived = came.resolve
      await send(producer, there)
      await came.promise
      await documents.insertOne({ payload: PAYLOAD })
    },
    async close() {
      await Promise.all([...consumers, producer].map((client) => client.disconnect()))
      await admin.deleteGroups([there, back])
      await admin.deleteTopics({ topics: [there, back] })
      await admin.disconnect()
      await mongo.close()
    },
  }
}

async function send(producer: Producer, topic: string): Promise<void> {
  await producer.send({ topic, acks: -1, messages: [{ value: PAYLOAD }] })
}

/** A consumer of the topic, in a group of the same name. Resolves when it has joined. */
async function consume(kafka: Kafka, topic: string, onMessage: () => Promise<void>) {
  const consumer = kafka.consumer({ groupId: topic })
  const joined = new Promise((resolve) => consumer.on('consumer.group_join', resolve))
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ eachMessage: onMessage })
  await joined
  return consumer
}
