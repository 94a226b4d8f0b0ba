import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { countSyncs, hasStrace } from '@posta/common/testing/count-syncs.ts'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { openEmbedded } from '../store/embedded.ts'
import { schema, statements } from './embedded.ts'
import { aRun, describeRuns, done } from './runs.suite.ts'
import type { RunFilter } from './runs.ts'

describeRuns('the embedded store', { fresh: () => freshFile(openEmbedded), atomicUpdates: true })

/** What SQLite would do for a statement. */
function planOf(sql: string): string {
  using database = new Database(':memory:')
  database.run(schema)
  const steps = database.query<{ detail: string }, []>(`EXPLAIN QUERY PLAN ${sql}`).all()
  return steps.map(({ detail }) => detail).join('\n')
}

test('every statement that reads uses an index: none reads a whole table or sorts', () => {
  const { page, create, append, addInputs, beat, pause, paused, ...fixed } = statements
  const filters = Array.from(
    { length: 2 ** 4 },
    (_, bits): RunFilter => ({
      user: bits & 1 ? 'x' : undefined,
      state: bits & 2 ? 'stuck' : undefined,
      type: bits & 4 ? 'x' : undefined,
      createdBefore: bits & 8 ? 'x' : undefined,
    }),
  )
  const pages = new Set(filters.map(page))
  expect(pages.size).toBe(16)
  for (const sql of [...Object.values(fixed), ...pages]) {
    expect(planOf(sql), sql).toMatch(/SEARCH run\w* USING (?:(?:COVERING )?INDEX|PRIMARY KEY)/)
    expect(planOf(sql), sql).not.toMatch(/SCAN run|TEMP B-TREE/)
  }
  for (const sql of [create, append, addInputs, beat, pause])
    expect(planOf(sql), sql).not.toMatch(/ runs? |TEMP B-TREE/)
})

test('what sleeps, is held, has ended or is of no kind asked for is not read to find what is due', () => {
  const ofKind = 'SEARCH runs_of_kind USING INDEX runs_unheld (type=? AND version=? AND <expr>=? AND due_at_ms'
  expect(planOf(statements.due)).toContain(`${ofKind}<?)`)
  expect(planOf(statements.nextDueMs)).toContain(`${ofKind}>?)`)
})

test.skipIf(!hasStrace)(
  'under strace: what only finds runs quickly is not synced, and all else is, once a call',
  async () => {
    const counts = await countSyncs(`
    import { openEmbedded } from ${JSON.stringify(join(import.meta.dir, '../store/embedded.ts'))}
    const { runs, close } = openEmbedded(folder + '/processor.db')
    const [first, second, third] = ${JSON.stringify(['a', 'b', 'c'].map((id) => aRun(id)))}
    const record = ${JSON.stringify(done(0, 'x'))}
    const input = { run: 'a', user: 'ana', name: 'cancel', by: 'ana', atMs: 1 }
    await runs.create([first])
    mark('create')
    await runs.create([second, third])
    mark('take')
    const held = await runs.take(first, 'me')
    mark('append')
    await runs.append([{ run: 'a', record }, { run: 'b', record }])
    mark('put')
    if (!(await runs.put(held, { ...held.head, published: 1 }))) throw new Error('It is held.')
    mark('addInputs')
    await runs.addInputs([input, { ...input, run: 'b' }])
    mark('notice')
    await runs.notice([input])
    mark('others')
    await runs.beat('me', 1)
    await runs.forget('me')
    mark('pause')
    await runs.pause('${sample.type}', true)
    mark('resume')
    await runs.pause('${sample.type}', false)
    mark('end')
    if ((await runs.unnoticed(9)).length !== 1) throw new Error('One was noticed.')`)
    const synced = { create: 1, append: 1, addInputs: 1, pause: 1, resume: 1 }
    expect(counts).toEqual({ ...synced, take: 0, put: 0, notice: 0, others: 0 })
  },
)
