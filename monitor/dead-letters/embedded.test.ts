import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { openEmbedded } from '../store/embedded.ts'
import { describeDeadLetters } from './dead-letters.suite.ts'
import type { DeadLetterFilter } from './dead-letters.ts'
import { schema, statements } from './embedded.ts'

describeDeadLetters('the embedded store', () => freshFile(openEmbedded))

/** Every combination of filters that a list can be asked with. */
function combinations(filter: Required<DeadLetterFilter>): DeadLetterFilter[] {
  let all: DeadLetterFilter[] = [{}]
  for (const [name, value] of Object.entries(filter)) all = all.flatMap((each) => [each, { ...each, [name]: value }])
  return all
}

test('every query goes by an index: none reads the whole table or sorts', () => {
  using database = new Database(':memory:')
  database.run(schema)
  const { list, oldest, count, add, ...fixed } = statements
  const text = { topic: 'posta.requests', group: 'x', status: 'open', type: 'x', user: 'x', operation: 'x' } as const
  const filters = combinations({ ...text, redrivable: true, fromMs: 0, untilMs: 1 })
  expect(filters).toHaveLength(2 ** 9)
  const queries = new Set([
    ...Object.values(fixed),
    ...filters.flatMap((filter) => [list(filter), oldest(filter), count(filter)]),
  ])
  expect(queries.size).toBe(5 + 3 * 2 ** 7)
  for (const sql of queries) {
    const plan = database.query<{ detail: string }, []>(`EXPLAIN QUERY PLAN ${sql}`).all()
    const steps = plan.map(({ detail }) => detail).join('\n')
    expect(steps, sql).toMatch(/SEARCH dead_letters USING (?:COVERING )?INDEX/)
    expect(steps, sql).not.toMatch(/SCAN dead_letters|TEMP B-TREE/)
  }
})
