import { afterEach, expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import { sql } from 'drizzle-orm'
import { Registry } from 'prom-client'
import { createGatewayMetrics } from './metrics.ts'
import { openTemporary } from './testing/database.ts'

const cleanups: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup()
})

async function start() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const registry = new Registry()
  const metrics = createGatewayMetrics({ ...opened, registry, passwords: { waiting: () => 3 } })
  return { ...opened, ...metrics, show: () => registry.metrics() }
}

test('operations are counted by type and status, beginning at 0', async () => {
  const { accepted, completed, show } = await start()
  const { type } = sample
  expect(await show()).toContain(`posta_operations_accepted_total{type="${type}"} 0`)
  expect(await show()).toContain(`posta_operations_completed_total{type="${stepped.type}",status="failed"} 0`)
  accepted(type)
  completed([
    { id: 'a', type, status: 'succeeded' },
    { id: 'b', type, status: 'failed' },
    { id: 'c', type, status: 'succeeded' },
  ])
  expect(await show()).toContain(`posta_operations_accepted_total{type="${type}"} 1`)
  expect(await show()).toContain(`posta_operations_completed_total{type="${type}",status="succeeded"} 2`)
  expect(await show()).toContain(`posta_operations_completed_total{type="${type}",status="failed"} 1`)
})

test('submissions and logins are counted by their outcome, and resolve and reject as before', async () => {
  const { submissions, logins, show } = await start()
  const submit = submissions(async (user: string) => {
    if (user === 'ana') return 'accepted'
    throw new Problem('overloaded')
  })
  const logIn = logins(async () => {
    throw new TypeError('a fault')
  })
  expect(await submit('ana')).toBe('accepted')
  await expect(submit('bob')).rejects.toMatchObject({ code: 'overloaded' })
  await expect(logIn()).rejects.toThrow('a fault')
  const shown = await show()
  expect(shown).toContain('posta_submissions_total{outcome="succeeded"} 1')
  expect(shown).toContain('posta_submissions_total{outcome="overloaded"} 1')
  expect(shown).toContain('posta_logins_total{outcome="internal"} 1')
})

test('commits, the outbox and the queue of passwords are shown', async () => {
  const { writer, show } = await start()
  const note = sql`INSERT INTO outbox (operation_id) VALUES ('any')`
  await Promise.all([writer.write([note]), writer.write([note])])
  const shown = await show()
  expect(shown).toContain('posta_outbox_rows 2')
  expect(shown).toContain('posta_password_hashes_waiting 3')
  expect(shown).toMatch(/^posta_commit_size_count 1$/m)
  expect(shown).toMatch(/^posta_commit_size_sum 2$/m)
})

test('while the database does not answer the other metrics are still shown', async () => {
  const { close, show } = await start()
  await close()
  cleanups.pop()
  const shown = await show()
  expect(shown).toMatch(/^posta_outbox_rows Nan$/im)
  expect(shown).toContain('posta_password_hashes_waiting 3')
})

test('cancels and answers are counted by kind, and operations that wait for an answer are shown', async () => {
  const { writer, told, show } = await start()
  expect(await show()).toContain('posta_operation_inputs_total{kind="signal"} 0')
  told('cancel')
  await writer.write([
    sql`INSERT INTO operations (id, user_id, type, status, waiting, input, created_at) VALUES
      ('a', 'ana', ${sample.type}, 'pending', 1, '{}', 0), ('b', 'ana', ${sample.type}, 'pending', 0, '{}', 0),
      ('c', 'ana', ${sample.type}, 'succeeded', 1, '{}', 0)`,
  ])
  const shown = await show()
  expect(shown).toContain('posta_operation_inputs_total{kind="cancel"} 1')
  expect(shown).toMatch(/^posta_operations_waiting 1$/m)
})
