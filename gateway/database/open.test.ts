import { expect, test } from 'bun:test'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { and, lte, type SQL, sql } from 'drizzle-orm'
import { openTemporary } from '../testing/database.ts'
import { openDatabase } from './open.ts'
import { isPending, operations, users } from './schema.ts'

test('processes that open a new database at once all get it, and each migration is applied once', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-open-'))
  try {
    const url = `file:${join(folder, 'gateway.db')}`
    const program = `
      const { openDatabase } = await import(${JSON.stringify(join(import.meta.dir, 'open.ts'))})
      const { database, close } = await openDatabase({ url: ${JSON.stringify(url)} })
      await database.query.users.findFirst()
      await close()`
    const processes = Array.from({ length: 5 }, () =>
      Bun.spawn([process.execPath, '-e', program], { stdout: 'inherit', stderr: 'inherit' }),
    )
    expect(await Promise.all(processes.map((each) => each.exited))).toEqual([0, 0, 0, 0, 0])

    const opened = await openDatabase({ url })
    const [applied] = await opened.database.all<{ rows: number; migrations: number }>(
      sql`SELECT count(*) AS rows, count(DISTINCT created_at) AS migrations FROM __drizzle_migrations`,
    )
    expect(applied?.rows).toBeGreaterThan(0)
    expect(applied?.rows).toBe(applied?.migrations)
    await opened.close()
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('what was committed is there when the database is opened again, whatever characters its path has', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-ope n%20#?-'))
  try {
    const url = `file:${join(folder, 'deep', 'gateway.db')}`
    const first = await openDatabase({ url })
    const row = { id: '1', email: 'ana@example.com', passwordHash: '', createdAt: 0 }
    await first.writer.write([first.database.insert(users).values(row)])
    await first.close()

    const second = await openDatabase({ url })
    expect(await second.database.select({ id: users.id }).from(users)).toEqual([{ id: '1' }])
    await second.close()
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('the file is for its owner alone, in write-ahead mode, and synced at every commit', async () => {
  const { url, database, close } = await openTemporary()
  const path = url.slice('file:'.length)
  expect([path, `${path}-wal`].map((each) => statSync(each).mode & 0o777)).toEqual([0o600, 0o600])
  expect(await database.get<unknown>(sql`PRAGMA journal_mode`)).toMatchObject({ journal_mode: 'wal' })
  expect(await database.get<unknown>(sql`PRAGMA synchronous`)).toMatchObject({ synchronous: 2 })
  await close()
})

test('a database that cannot be opened rejects', async () => {
  await expect(openDatabase({ url: `file:${tmpdir()}` })).rejects.toThrow()
})

test('every look-up of accounts, relay and sweep has its index', async () => {
  const { database, close } = await openTemporary()
  const plan = async (query: SQL) => {
    const steps = await database.all<{ detail: string }>(sql`EXPLAIN QUERY PLAN ${query}`)
    return steps.map(({ detail }) => detail).join('; ')
  }
  const plans = {
    'SELECT * FROM users WHERE email = ?': 'users_email_unique',
    'SELECT * FROM refresh_tokens WHERE hash = ?': 'sqlite_autoindex_refresh_tokens_1',
    'DELETE FROM refresh_tokens WHERE session_id = ?': 'refresh_tokens_by_session',
    'DELETE FROM refresh_tokens WHERE user_id = ?': 'refresh_tokens_by_user',
    'SELECT hash FROM refresh_tokens WHERE expires_at <= ? LIMIT 10': 'refresh_tokens_by_expiry',
    'SELECT * FROM operations WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT 10': 'operations_by_user',
    'SELECT * FROM operations WHERE user_id = ? AND idempotency_key = ?': 'operations_by_idempotency_key',
    "SELECT count(*) FROM operations WHERE user_id = ? AND status = 'pending'": 'operations_pending_by_user',
    "SELECT * FROM operations WHERE status = 'pending' AND resend_at <= ? LIMIT 10": 'operations_pending_by_resend',
  }
  for (const [query, index] of Object.entries(plans)) {
    const steps = await plan(sql.raw(query))
    expect(steps, query).toContain(index)
    expect(steps, query).not.toContain('SCAN')
    expect(steps, query).not.toContain('TEMP B-TREE')
  }
  const due = database
    .select()
    .from(operations)
    .where(and(isPending, lte(operations.resendAt, 1)))
  expect(await plan(due.getSQL())).toContain('operations_pending_by_resend')
  await close()
})
