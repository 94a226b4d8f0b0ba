import { encodeDeadLetter } from '@posta/common/messages/dead-letter.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import type { Group } from '@posta/common/messages/topics.ts'
import { freshDatabase, freshFile } from '@posta/common/testing/fresh-store.ts'
import type { StoredDeadLetter } from '../dead-letters/dead-letters.ts'
import { toDeadLetter } from '../dead-letters/from-message.ts'
import { openEmbedded } from '../store/embedded.ts'
import { openMongo } from '../store/mongo.ts'
import { deliver, loggedIn, NOON_MS, requested } from './messages.ts'

const serverUrl = process.env.TEST_MONGO_URL

/** Each store that tests can run on, by name. */
export const stores = [
  ['embedded', () => freshFile(openEmbedded)] as const,
  ...(serverUrl ? [['MongoDB', () => freshDatabase(serverUrl, openMongo)] as const] : []),
]

/** A dead letter as monitor stores it, `ms` after noon. */
export function setAside(
  original: Delivered,
  reason = 'It failed.',
  ms = 0,
  group: Group = 'posta.processor',
  occurrence?: number,
): StoredDeadLetter {
  return toDeadLetter(deliver(encodeDeadLetter(original, group, reason, occurrence)), NOON_MS + ms)
}

/** So many dead letters, of requests of different operations, received one ms after the other. */
export function letters(count: number): StoredDeadLetter[] {
  return Array.from({ length: count }, (_, n) => setAside(deliver(requested(`op-${n}`), n), 'It failed.', n))
}

/** What another program wrote to the dead-letter topic. */
export const unreadable = toDeadLetter({ ...deliver(loggedIn('x'), 9), topic: 'posta.dead-letters' }, NOON_MS + 1)

/** A broker that keeps what is published, a batch each, and fails while it is told to. */
export function fakeBroker() {
  const published: Outgoing[][] = []
  let failure: Error | undefined
  return {
    published,
    /** The values of a header, over all published messages that have it. */
    ids: (header: 'ce_id' | 'ce_redrive') =>
      published
        .flat()
        .flatMap(({ headers }) => headers.flatMap(([name, value]) => (name === header ? String(value) : []))),
    fail(error: Error | undefined) {
      failure = error
    },
    async publish(messages: readonly Outgoing[]) {
      if (failure) throw failure
      published.push([...messages])
      return messages.map(({ topic }) => ({ topic, partition: 0, offset: 0 }))
    },
  }
}
