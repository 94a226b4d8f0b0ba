import type { Header } from '../../common/messages/message.ts'
import { topics } from '../../common/messages/topics.ts'
import type { Environment } from '../../common/service/config.ts'
import { type Foreign, publishForeign } from '../testing/foreign-client.ts'
import type { Random } from './random.ts'
import type { Poison } from './snapshot.ts'

/** Publishes on every topic a message that no service can read. It must become one dead letter and hold up nothing. */
export async function publishPoison(foreign: Environment, known: Poison[], random: Random): Promise<void> {
  const marked = Object.values(topics).map((topic) => {
    const mark = `poison-${Math.floor(random.next() * 1e12).toString(36)}`
    const texts = [mark, `{"mark": "${mark}"`, JSON.stringify({ mark }), JSON.stringify([mark])]
    const message: Foreign = {
      topic,
      key: mark,
      value: Buffer.from(random.pick(texts)),
      headers: random.chance(0.5) ? [] : headersFor(topic),
    }
    return { mark, topic, atMs: Date.now(), message }
  })
  let acknowledged = false
  try {
    await publishForeign(
      foreign,
      marked.map(({ message }) => message),
    )
    acknowledged = true
  } finally {
    // After a failure some of the messages may be on their topics all the same.
    known.push(...marked.map(({ mark, topic, atMs }) => ({ mark, topic, atMs, acknowledged })))
  }
}

/** The headers of a good message, which do not fit the value. */
function headersFor(topic: string): Header[] {
  const type = { [topics.requests]: 'posta.operation.requested', [topics.results]: 'posta.operation.succeeded' }[topic]
  return Object.entries({
    ce_specversion: '1.0',
    ce_id: 'poison',
    ce_source: '/foreign',
    ce_type: type ?? 'posta.user.registered',
    ce_time: '2026-01-01T00:00:00Z',
  }).map(([name, text]): Header => [name, Buffer.from(text)])
}
