import type { Header, Outgoing } from '../../common/messages/message.ts'
import { topics } from '../../common/messages/topics.ts'
import type { ChaosParts } from './parts.ts'
import type { Random } from './random.ts'
import type { Poison } from './snapshot.ts'

/** Puts on every topic what nobody there can read. Each must become one dead letter, and hold up nothing. */
export async function poisonAll(parts: ChaosParts, known: Poison[], random: Random): Promise<void> {
  const messages: Outgoing[] = []
  const put: Omit<Poison, 'acknowledged'>[] = []
  for (const topic of Object.values(topics)) {
    const mark = `poison-${Math.floor(random.next() * 1e12).toString(36)}`
    messages.push({ topic, key: mark, value: Buffer.from(textOf(mark, random)), headers: headersFor(topic, random) })
    put.push({ mark, topic, atMs: Date.now() })
  }
  let acknowledged = false
  try {
    await parts.publishForeign(messages)
    acknowledged = true
  } finally {
    // Where that failed some of it may be there all the same.
    known.push(...put.map((each) => ({ ...each, acknowledged })))
  }
}

function textOf(mark: string, random: Random): string {
  return random.pick([mark, `{"mark": "${mark}"`, JSON.stringify({ mark }), JSON.stringify([mark])])
}

/** None at all, or those of a message whose value does not fit them. */
function headersFor(topic: string, random: Random): Header[] {
  if (random.chance(0.5)) return []
  const type = { [topics.requests]: 'posta.operation.requested', [topics.results]: 'posta.operation.succeeded' }[topic]
  return Object.entries({
    ce_specversion: '1.0',
    ce_id: 'poison',
    ce_source: '/foreign',
    ce_type: type ?? 'posta.user.registered',
    ce_time: '2026-01-01T00:00:00Z',
  }).map(([name, text]): Header => [name, Buffer.from(text)])
}
