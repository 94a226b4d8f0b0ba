import { Database } from 'bun:sqlite'
import { join } from 'node:path'
import type { Header } from '../../common/messages/message.ts'
import { type Topic, topics } from '../../common/messages/topics.ts'
import { holdLocks } from '../testing/hold-locks.ts'
import type { ChaosParts } from './parts.ts'
import type { Message } from './snapshot.ts'
import { toMessage } from './to-message.ts'

/** Files in a folder that all processes share. What can go wrong with one is that another process keeps it locked. */
export function embeddedParts(dataDir: string): ChaosParts {
  const path = (name: string) => join(dataDir, `${name}.db`)
  const lock = (name: string, ms: number) => holdLocks([path(name)], () => Bun.sleep(ms))
  const none = (what: string) => () => Promise.reject(new Error(`Embedded parts have no ${what}.`))
  return {
    storeUrls: { processor: `file:${path('processor')}`, monitor: `file:${path('monitor')}` },
    environmentOf: () => ({}),
    freezeBroker: (ms) => lock('broker', ms),
    killBroker: none('broker that could be killed'),
    restartBroker: none('broker that could be restarted'),
    stopStore: lock,
    lockDatabase: (ms) => lock('gateway', ms),
    disturb: none('connections'),
    recreateTopic: none('topics that could be deleted'),
    recreated: [],
    foreign: { DATA_DIR: dataDir },
    async readTopics() {
      using db = new Database(path('broker'), { readonly: true })
      return Object.values(topics).flatMap((topic) => readTopic(db, topic))
    },
    async dispose() {},
  }
}

interface Row {
  readonly offset: number
  readonly timestamp: number
  readonly key: Uint8Array
  readonly headers: string
  readonly value: Uint8Array
}

function readTopic(db: Database, topic: Topic): Message[] {
  const rows = db.query<Row, []>(`SELECT offset, timestamp, key, headers, value FROM "${topic}" ORDER BY offset`).all()
  return rows.map(({ timestamp, headers, ...row }) => {
    const texts: [string, string][] = JSON.parse(headers)
    const decoded = texts.map(([name, text]): Header => [name, Buffer.from(text, 'latin1')])
    return toMessage({ ...row, topic, partition: 0, headers: decoded, timestampMs: timestamp }, 0)
  })
}
