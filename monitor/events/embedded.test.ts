import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { verify } from '../audit/chain.ts'
import { openEmbedded } from '../store/embedded.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { schema, statements } from './embedded.ts'
import { describeStore } from './events.suite.ts'
import { toEvent } from './record.ts'

describeStore('the embedded store', () => freshFile(openEmbedded))

/** What SQLite would do for a statement. */
function planOf(sql: string): string {
  using database = new Database(':memory:')
  database.run(schema)
  const steps = database.query<{ detail: string }, []>(`EXPLAIN QUERY PLAN ${sql}`).all()
  return steps.map(({ detail }) => detail).join('\n')
}

test('every query uses an index: none reads the whole table or sorts', () => {
  const { list, insert, ...fixed } = statements
  const lists = Array.from({ length: 2 ** 4 }, (_, bits) =>
    list({
      type: bits & 1 ? 'x' : undefined,
      user: bits & 2 ? 'x' : undefined,
      operation: bits & 4 ? 'x' : undefined,
      fromMs: bits & 8 ? 0 : undefined,
    }),
  )
  expect(new Set(lists).size).toBe(16)
  for (const sql of [...Object.values(fixed), ...lists]) {
    expect(planOf(sql), sql).toMatch(/SEARCH events USING (?:COVERING )?INDEX/)
    expect(planOf(sql), sql).not.toMatch(/SCAN events|TEMP B-TREE/)
  }
})

test('counts and durations are answered by an index alone', () => {
  for (const sql of [statements.countByMinute, statements.durations])
    expect(planOf(sql)).toMatch(/SEARCH events USING COVERING INDEX events_type/)
})

test('processes that open a new file at the same time all work, and store each event once', async () => {
  using folder = temporaryFolder()
  const path = join(folder.path, 'new', 'monitor.db')
  const events = Array.from({ length: 50 }, (_, n) => toEvent(deliver(loggedIn(`e-${n}`)), NOON_MS))
  const script = `
    const { openEmbedded } = await import(${JSON.stringify(join(import.meta.dir, '../store/embedded.ts'))})
    const { createAppend } = await import(${JSON.stringify(join(import.meta.dir, 'append.ts'))})
    const store = openEmbedded(${JSON.stringify(path)})
    const append = createAppend(store.events)
    for (const event of ${JSON.stringify(events)}) await append([event])
    await store.close()`
  const processes = [1, 2, 3].map(() => Bun.spawn([process.execPath, '-e', script], { stderr: 'inherit' }))
  expect(await Promise.all(processes.map(({ exited }) => exited))).toEqual([0, 0, 0])
  const store = openEmbedded(path)
  const { chains } = await verify(store.events.inChainOrder())
  expect(chains).toMatchObject([{ events: 50, head: { seq: 50 } }])
  expect(chains[0]).not.toHaveProperty('firstBad')
  await store.close()
})
