import { expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { Registry } from 'prom-client'
import { createGatewayMetrics } from './metrics.ts'

function start(outboxRows = async () => 7) {
  const registry = new Registry()
  const metrics = createGatewayMetrics(registry, { outboxRows, hashesWaiting: () => 3 })
  return { ...metrics, show: () => registry.metrics() }
}

test('operations are counted by type and outcome, from 0 on', async () => {
  const { accepted, completed, show } = start()
  expect(await show()).toContain('posta_operations_accepted_total{type="convert"} 0')
  expect(await show()).toContain('posta_operations_completed_total{type="store-rates",status="failed"} 0')
  accepted('convert')
  completed([
    { id: 'a', type: 'convert', status: 'succeeded' },
    { id: 'b', type: 'convert', status: 'failed' },
    { id: 'c', type: 'convert', status: 'succeeded' },
  ])
  expect(await show()).toContain('posta_operations_accepted_total{type="convert"} 1')
  expect(await show()).toContain('posta_operations_completed_total{type="convert",status="succeeded"} 2')
  expect(await show()).toContain('posta_operations_completed_total{type="convert",status="failed"} 1')
})

test('submissions and logins are counted by what comes of them, and are what they were', async () => {
  const { submissions, logins, show } = start()
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

test('what waits and what joined is shown; a database that does not answer takes nothing else from the page', async () => {
  const { committed, show } = start()
  committed(5)
  const shown = await show()
  expect(shown).toContain('posta_outbox_rows 7')
  expect(shown).toContain('posta_password_hashes_waiting 3')
  expect(shown).toMatch(/^posta_commit_size_count 1$/m)
  expect(shown).toMatch(/^posta_commit_size_sum 5$/m)

  const away = await start(() => Promise.reject(new Error('The database is away.'))).show()
  expect(away).toMatch(/^posta_outbox_rows Nan$/im)
  expect(away).toContain('posta_password_hashes_waiting 3')
})
