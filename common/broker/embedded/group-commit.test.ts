import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { createGroupCommit } from './group-commit.ts'

const MIB = 1024 * 1024

/** How many of these writes, made at once, each transaction has. */
async function cut(writes: readonly { readonly bytes: number }[]): Promise<number[]> {
  using db = new Database(':memory:')
  const counts: number[] = []
  let count = 0
  const write = createGroupCommit(db, () => {
    counts.push(count)
    count = 0
  })
  await Promise.all(writes.map((options) => write(() => count++, options)))
  return counts
}
const times = (count: number, bytes: number) => Array.from({ length: count }, () => ({ bytes }))

test('a transaction has at most 4 MiB, unless a single write has more', async () => {
  expect(await cut(times(9, MIB))).toEqual([4, 4, 1])
  expect(await cut([...times(1, 5 * MIB), ...times(2, 3 * MIB)])).toEqual([1, 1, 1])
})

test('a transaction has at most 2000 writes', async () => {
  expect(await cut(times(2001, 0))).toEqual([2000, 1])
})
