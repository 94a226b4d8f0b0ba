import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { openEmbedded } from '../store/embedded.ts'
import { queries, schema } from './embedded.ts'
import { describeResults } from './results.suite.ts'

describeResults('the embedded store', () => freshFile(openEmbedded))

test('every query uses an index: none reads the whole table or sorts', () => {
  using database = new Database(':memory:')
  database.run(schema)
  for (const [name, sql] of Object.entries(queries)) {
    const values = Array.from(new Set(sql.match(/\?\d/g)), () => '[]')
    const plan = database.query<{ detail: string }, string[]>(`EXPLAIN QUERY PLAN ${sql}`).all(...values)
    const steps = plan.map(({ detail }) => detail)
    expect(steps.join('\n'), name).toMatch(/SEARCH (?:results|existing) USING/)
    expect(steps.join('\n'), name).not.toMatch(/SCAN (?:results|existing)|TEMP B-TREE/)
  }
})
