import { expect, test } from 'bun:test'
import { createClient, LibsqlError, type ResultSet } from '@libsql/client'
import { Problem } from '@posta/common/service/problem.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { eq, sql } from 'drizzle-orm'
import { openTemporary } from '../testing/database.ts'
import type { Bulk } from './bulk.ts'
import { createWriter } from './commit.ts'
import { leases, outbox, users } from './schema.ts'

/** Emails into users; false where the email is taken. The email `fault` breaks a constraint that nothing handles. */
const insertUser: Bulk<{ id: string; email: string }, boolean> = {
  statements: (rows) => [
    sql`INSERT INTO users (id, email, password_hash, created_at)
      SELECT value->>'id', value->>'email', iif(value->>'email' = 'fault', NULL, ''), 0 FROM json_each(${JSON.stringify(rows)}) WHERE true
      ON CONFLICT DO NOTHING RETURNING id`,
  ],
  outcomes([inserted], rows) {
    const ids = new Set(inserted?.rows.map((row) => row.id))
    return rows.map(({ id }) => ids.has(id))
  },
}

const note = (id: string) => sql`INSERT INTO ${outbox} (operation_id) VALUES (${id})`
/** Breaks the table's primary key. */
const fault = sql`INSERT INTO ${outbox} (id, operation_id) VALUES (1, 'a'), (1, 'b')`

async function open() {
  const opened = await openTemporary()
  const commits: number[] = []
  opened.writer.onCommit((submissions) => commits.push(submissions))
  return { ...opened, commits }
}

test('submissions at the same time share a transaction, and each gets its own outcome', async () => {
  const { writer, commits, close } = await open()
  const insert = writer.bulk(insertUser)
  const rows = Array.from({ length: 100 }, (_, n) => ({ id: `${n}`, email: `${n % 50}@example.com` }))
  const [outcomes, [result]] = await Promise.all([Promise.all(rows.map(insert)), writer.write([note('x')])])
  expect(outcomes).toEqual(rows.map((_, n) => n < 50))
  expect(result?.rowsAffected).toBe(1)
  expect(commits).toEqual([101])
  await close()
})

test('a transaction has at most 256 submissions, and the order of arrival is kept', async () => {
  const { writer, database, commits, close } = await open()
  const ids = Array.from({ length: 600 }, (_, n) => `${n}`)
  await Promise.all(ids.map((id) => writer.write([note(id)])))
  expect(commits).toEqual([256, 256, 88])
  const stored = await database.select().from(outbox).orderBy(outbox.id)
  expect(stored.map(({ operationId }) => operationId)).toEqual(ids)
  await close()
})

test('a fault rejects the whole submission that has it, and no other', async () => {
  const { writer, database, close } = await open()
  const insert = writer.bulk(insertUser)
  const broken: Bulk<string, never> = {
    statements() {
      throw new TypeError('cannot be written')
    },
    outcomes: () => [],
  }
  const settled = await Promise.allSettled<unknown>([
    insert({ id: '1', email: 'a' }),
    insert({ id: '2', email: 'fault' }),
    insert({ id: '3', email: 'a' }),
    insert({ id: '4', email: 'b' }),
    writer.write([note('x'), fault, note('y')]),
    writer.write([note('z')]),
    writer.bulk(broken)('row'),
  ])
  const [first, second, third, fourth, group, other, unwritable] = settled
  expect([first, third, fourth]).toEqual([
    { status: 'fulfilled', value: true },
    { status: 'fulfilled', value: false },
    { status: 'fulfilled', value: true },
  ])
  expect(second).toMatchObject({ status: 'rejected', reason: { code: 'SQLITE_CONSTRAINT' } })
  expect(group).toMatchObject({ status: 'rejected', reason: { code: 'SQLITE_CONSTRAINT' } })
  expect(other?.status).toBe('fulfilled')
  expect(unwritable).toMatchObject({ status: 'rejected', reason: { message: 'cannot be written' } })
  expect((await database.select().from(outbox)).map(({ operationId }) => operationId)).toEqual(['z'])
  expect((await database.select().from(users)).map(({ id }) => id)).toEqual(['1', '4'])
  await close()
})

test('a write waits while another process holds the lock, and then succeeds', async () => {
  const { url, database, close } = await open()
  const other = createClient({ url })
  const client = createClient({ url, concurrency: 1 })
  let attempts = 0
  const writer = createWriter({
    batch(...given) {
      attempts += 1
      return client.batch(...given)
    },
    reconnect: () => client.reconnect(),
  })
  const lock = await other.transaction('write')
  const writing = writer.write([note('x')])
  // One refusal would already leave the client unable to commit, if it did not reconnect.
  await eventually(() => attempts > 3)
  await lock.commit()
  await writing
  await writer.write([note('y')])
  expect((await database.select().from(outbox)).map(({ operationId }) => operationId)).toEqual(['x', 'y'])
  client.close()
  other.close()
  await close()
})

test('while the database stays locked a write rejects as overloaded, and nothing is written', async () => {
  const { url, database, close } = await open()
  const other = createClient({ url })
  const lock = await other.transaction('write')
  let nowMs = 0
  const writer = createWriter(createClient({ url, concurrency: 1 }), { monotonicMs: () => (nowMs += 3000) })
  const refused = expect.objectContaining({ code: 'overloaded', retryAfterS: 1 })
  expect(await Promise.all([writer.write([note('x')]), writer.write([note('y')])]).catch((error) => error)).toEqual(
    refused,
  )
  await lock.rollback()
  expect(await database.select().from(outbox)).toEqual([])
  await writer.write([note('z')])
  expect(await database.select().from(outbox)).toHaveLength(1)
  other.close()
  await close()
})

test('rows beyond a full queue are refused as overloaded; those in it and other writes succeed', async () => {
  const { writer, database, close } = await open()
  const insert = writer.bulk(insertUser)
  const rows = Array.from({ length: 4100 }, (_, n) => ({ id: `${n}`, email: `${n}` }))
  const [settled] = await Promise.all([Promise.allSettled(rows.map(insert)), writer.write([note('x')])])
  const refusals = settled.filter((each) => each.status === 'rejected').map(({ reason }) => reason)
  expect(refusals).toHaveLength(4)
  for (const refusal of refusals) expect(refusal).toBeInstanceOf(Problem)
  expect(await database.$count(users)).toBe(4096)
  expect(await insert({ id: 'later', email: 'later' })).toBe(true)
  await close()
})

test('closing commits what is queued and refuses later writes', async () => {
  const { writer, database, close } = await open()
  const writing = writer.write([note('x')])
  await writer.close()
  await writing
  expect(await database.$count(outbox)).toBe(1)
  await expect(writer.write([note('y')])).rejects.toThrow('closing')
  await close()
})

test('a failure of the disk rejects the whole transaction at once, without trying each submission by itself', async () => {
  let batches = 0
  const full = new LibsqlError('disk full', 'SQLITE_FULL')
  const writer = createWriter({
    async batch(): Promise<ResultSet[]> {
      batches += 1
      throw full
    },
    reconnect() {},
  })
  const settled = await Promise.allSettled([writer.write([note('x')]), writer.write([note('y')])])
  expect(settled.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  expect(batches).toBe(1)
})

test('a write takes drizzle queries and sql, and resolves to the result of each', async () => {
  const { writer, database, close } = await open()
  const [inserted, updated, read] = await writer.write([
    database.insert(leases).values({ name: 'a', owner: null, epoch: 1, beat: 0 }),
    database.update(leases).set({ beat: 5 }).where(eq(leases.name, 'a')),
    sql`SELECT beat FROM ${leases}`,
  ])
  expect([inserted?.rowsAffected, updated?.rowsAffected, read?.rows[0]?.beat]).toEqual([1, 1, 5])
  await close()
})

test('writes beyond 1024 that wait are refused as overloaded, with when to try again', async () => {
  const { writer, close } = await open()
  const settled = await Promise.allSettled(Array.from({ length: 1025 }, () => writer.write([sql`SELECT 1`])))
  const refusals = settled.flatMap((each) => (each.status === 'rejected' ? each.reason : []))
  expect(refusals).toEqual([expect.objectContaining({ code: 'overloaded', retryAfterS: 1 })])
  await writer.close()
  await expect(writer.write([sql`SELECT 1`])).rejects.toMatchObject({ code: 'unavailable', retryAfterS: 1 })
  await close()
})

test('only a commit is told to who listens for commits', async () => {
  const { writer, commits, close } = await open()
  await expect(writer.write([fault])).rejects.toMatchObject({ code: 'SQLITE_CONSTRAINT' })
  expect(commits).toEqual([])
  await writer.write([note('x')])
  expect(commits).toEqual([1])
  await close()
})

test('a write has text, numbers, bytes and null as they are; a parameter that SQLite has no type for rejects its write alone', async () => {
  const { writer, close } = await open()
  const values = ['text', 1.5, 12n, null, new Uint8Array([0, 255])]
  const read = (value: unknown) => writer.write([sql`SELECT typeof(${value}) AS type, ${value} AS value`])
  const results = await Promise.all(values.map(read))
  expect(results.map(([result]) => result?.rows[0]?.type)).toEqual(['text', 'real', 'integer', 'null', 'blob'])
  expect(results[0]?.[0]?.rows[0]?.value).toBe('text')
  const [refused, other] = await Promise.allSettled([read({ an: 'object' }), writer.write([note('x')])])
  expect(refused).toMatchObject({ status: 'rejected', reason: { message: expect.stringContaining('no type') } })
  expect(other.status).toBe('fulfilled')
  await close()
})

test.each(['SQLITE_BUSY', 'SQLITE_LOCKED'])(
  'a write tries again, on a new connection, after %s for 5 s',
  async (code) => {
    const calls: string[] = []
    let nowMs = 0
    const writer = createWriter(
      {
        async batch(_statements, mode): Promise<ResultSet[]> {
          calls.push(`batch ${mode}`)
          throw new LibsqlError('locked', code)
        },
        reconnect: () => void calls.push('reconnect'),
      },
      { monotonicMs: () => (nowMs += 2500) },
    )
    await expect(writer.write([note('x')])).rejects.toMatchObject({
      code: 'overloaded',
      message: 'The database is locked.',
      retryAfterS: 1,
      cause: { code },
    })
    // At 2.5 s, at 5 s, and once more after that.
    expect(calls).toEqual(Array.from({ length: 3 }, () => ['batch write', 'reconnect']).flat())
  },
)

test('an error that only looks like a lock is not tried again', async () => {
  let batches = 0
  const writer = createWriter({
    async batch(): Promise<ResultSet[]> {
      batches += 1
      throw Object.assign(new Error('not of the database'), { code: 'SQLITE_BUSY' })
    },
    reconnect() {},
  })
  await expect(writer.write([note('x')])).rejects.toThrow('not of the database')
  expect(batches).toBe(1)
})
