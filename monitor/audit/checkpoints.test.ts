import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import type { Store } from '../store/store.ts'
import { DAY_MS } from '../testing/checkpoints.ts'
import { stores } from '../testing/dead-letters.ts'
import { NOON_MS } from '../testing/messages.ts'
import { schema, statements } from './embedded.ts'

const HOUR_MS = 60 * 60 * 1000

describe.each(stores)('the %s store keeps the promises of checkpoints:', (_name, fresh) => {
  let here: Fresh<Store>
  let store: Store

  beforeEach(() => {
    here = fresh()
    store = here.open()
  })
  afterEach(async () => {
    await here.dispose()
  })

  const kept = async () => (await store.checkpoints.list({ limit: 9 })).map(({ jwt }) => jwt)

  test('of each UTC day the latest stays, in whatever order they come and however often', async () => {
    const day = (jwt: string, days: number, ms = 0) => ({ jwt, atMs: NOON_MS + days * DAY_MS + ms })
    for (const checkpoint of [
      day('b', 0, 11 * HOUR_MS),
      day('a', 0),
      day('b', 0, 11 * HOUR_MS),
      day('old', -2),
      day('next', 1),
    ])
      await store.checkpoints.keep(checkpoint)
    expect(await kept()).toEqual(['next', 'b', 'old'])
    await store.checkpoints.keep(day('c', 0, 12 * HOUR_MS - 1))
    expect(await kept()).toEqual(['next', 'c', 'old'])
    await store.close()
    store = here.open()
    expect(await store.checkpoints.list({ limit: 1 })).toEqual([day('next', 1)])
  })

  test('they are listed page by page, and pruned up to a time', async () => {
    for (const days of [0, 1, 2, 3]) await store.checkpoints.keep({ jwt: String(days), atMs: NOON_MS + days * DAY_MS })
    expect(await store.checkpoints.list({ limit: 2, beforeMs: NOON_MS + 3 * DAY_MS })).toEqual([
      { jwt: '2', atMs: NOON_MS + 2 * DAY_MS },
      { jwt: '1', atMs: NOON_MS + DAY_MS },
    ])
    await store.checkpoints.prune(NOON_MS + 2 * DAY_MS)
    expect(await kept()).toEqual(['3', '2'])
  })
})

test('every query goes by an index', () => {
  using database = new Database(':memory:')
  database.run(schema)
  const { keep, ...queries } = statements
  for (const sql of Object.values(queries)) {
    const plan = database.query<{ detail: string }, []>(`EXPLAIN QUERY PLAN ${sql}`).all()
    const steps = plan.map(({ detail }) => detail).join('\n')
    expect(steps, sql).toMatch(/SEARCH checkpoints USING (?:COVERING )?INDEX/)
    expect(steps, sql).not.toMatch(/TEMP B-TREE/)
  }
})
