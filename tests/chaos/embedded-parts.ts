import { Database } from 'bun:sqlite'
import { join } from 'node:path'
import { openEmbedded } from '../../common/broker/embedded/embedded.ts'
import type { Header } from '../../common/messages/message.ts'
import { topics } from '../../common/messages/topics.ts'
import { toMessage } from './message.ts'
import type { ChaosParts } from './parts.ts'
import type { Message } from './snapshot.ts'

/** Files in one folder, which all processes share. Another process that holds one locked is what can go wrong with it. */
export function embeddedParts(dataDir: string): ChaosParts {
  const path = (name: string) => join(dataDir, `${name}.db`)
  let jwksUrl = ''
  const none = (what: string) => () => Promise.reject(new Error(`Embedded parts have no ${what}.`))

  return {
    kind: 'embedded',
    dataDir,
    storeUrls: { processor: `file:${path('processor')}`, monitor: `file:${path('monitor')}` },
    remade: [],
    environmentOf: () => ({ DATA_DIR: dataDir, JWKS_URL: jwksUrl }),
    async setGateway(url) {
      jwksUrl = `${url}/.well-known/jwks.json`
    },
    freezeBroker: (ms) => holdLocked(path('broker'), ms),
    killBroker: none('broker that could be killed'),
    restartBroker: none('broker that could be restarted'),
    takeStoreAway: (service, ms) => holdLocked(path(service), ms),
    lockDatabase: (ms) => holdLocked(path('gateway'), ms),
    hurt: none('connections'),
    remakeTopic: none('topics that could be deleted'),
    async publishForeign(messages) {
      const broker = openEmbedded({ path: path('broker') })
      try {
        await broker.publish(messages)
      } finally {
        await broker.close()
      }
    },
    async readTopics() {
      const db = new Database(path('broker'), { readonly: true })
      try {
        return Object.values(topics).flatMap((topic) => readTopic(db, topic))
      } finally {
        db.close()
      }
    },
    async dispose() {},
  }
}

/** In a process of its own, as another program would: nobody can write meanwhile. */
export async function holdLocked(path: string, ms: number): Promise<void> {
  const script = `
    const { Database } = require('bun:sqlite')
    const db = new Database(${JSON.stringify(path)})
    db.run('PRAGMA busy_timeout = 5000')
    db.run('BEGIN IMMEDIATE')
    setTimeout(() => db.run('ROLLBACK'), ${ms})`
  const holder = Bun.spawn([process.execPath, '-e', script], { stdio: ['ignore', 'ignore', 'inherit'] })
  if ((await holder.exited) !== 0) throw new Error(`${path} could not be locked.`)
}

interface Row {
  readonly offset: number
  readonly timestamp: number
  readonly key: Uint8Array
  readonly headers: string
  readonly value: Uint8Array
}

function readTopic(db: Database, topic: (typeof topics)[keyof typeof topics]): Message[] {
  const rows = db.query<Row, []>(`SELECT offset, timestamp, key, headers, value FROM "${topic}" ORDER BY offset`).all()
  return rows.map(({ offset, timestamp, key, headers, value }) => {
    const texts: [string, string][] = JSON.parse(headers)
    const decoded = texts.map(([name, text]): Header => [name, Buffer.from(text, 'latin1')])
    return toMessage({ topic, partition: 0, offset, key, value, headers: decoded, timestampMs: timestamp }, 0)
  })
}
