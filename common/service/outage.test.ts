import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { KafkaJSConnectionError, KafkaJSNumberOfRetriesExceeded } from 'kafkajs'
import { within } from './deadline.ts'
import { toProblem } from './http.ts'
import { isOutage } from './outage.ts'
import { Problem } from './problem.ts'

async function errorOf(work: () => unknown): Promise<unknown> {
  try {
    await work()
  } catch (error) {
    return error
  }
  throw new Error('It did not fail.')
}

const named = (name: string, code?: string) => Object.assign(new Error('It failed.'), { name, ...(code && { code }) })

test('a store that cannot be reached is an outage, whoever says so', async () => {
  using locked = new Database(':memory:')
  const outages = [
    // Nothing listens on port 1; and no folder can be made in a file.
    await errorOf(() => fetch('http://127.0.0.1:1/')),
    await errorOf(() => mkdirSync(join(import.meta.path, 'folder'))),
    await errorOf(() => new Database(join(import.meta.path, 'x.db'))),
    await errorOf(() => locked.run('PRAGMA query_only = ON; CREATE TABLE t (a)')),
    AbortSignal.abort(new DOMException('late', 'TimeoutError')).reason,
    await errorOf(() => within(new Promise(() => {}), 1, 'The answer')),
    named('MongoServerSelectionError'),
    new KafkaJSConnectionError('connect ECONNREFUSED'),
    new KafkaJSNumberOfRetriesExceeded(new KafkaJSConnectionError('gone'), { retryCount: 5, retryTime: 1000 }),
    named('LibsqlError', 'SQLITE_FULL'),
    new Error('A query failed.', { cause: named('LibsqlError', 'SQLITE_IOERR_READ') }),
  ]
  for (const outage of outages) {
    expect(isOutage(outage), String(outage)).toBe(true)
    expect(toProblem(outage)).toMatchObject({ code: 'unavailable', retryAfterS: 5 })
  }
})

test('a fault of ours is none', async () => {
  using database = new Database(':memory:')
  const circle = new Error('a')
  circle.cause = circle
  const faults = [
    await errorOf(() => database.run('SELEC')),
    await errorOf(() => database.run('CREATE TABLE t (a NOT NULL); INSERT INTO t VALUES (NULL)')),
    await errorOf(() => JSON.parse('{')),
    new TypeError('It is undefined.'),
    named('LibsqlError', 'SQLITE_CONSTRAINT_CHECK'),
    circle,
    'thrown text',
  ]
  for (const fault of faults) {
    expect(isOutage(fault), String(fault)).toBe(false)
    expect(toProblem(fault).code).toBe('internal')
  }
  expect(toProblem(new Problem('overloaded', undefined, { cause: named('MongoError') })).code).toBe('overloaded')
})
