import { expect, test } from 'bun:test'
import { eventually } from '../testing/eventually.ts'
import { createLog } from './log.ts'
import { createTally } from './tally.ts'
import { tellCounted } from './tell-counted.ts'

interface Refusal {
  readonly what: string
  readonly network?: string
}

function start() {
  let nowMs = 1000
  const tally = createTally<Refusal>(
    ({ what }) => ({ what }),
    () => nowMs,
  )
  return {
    tally,
    pass(ms: number) {
      nowMs += ms
    },
  }
}

test('what is alike is counted together, with the times of the first and the last, until it is taken', () => {
  const { tally, pass } = start()
  for (let n = 0; n < 20; n++) {
    tally.add({ what: 'login', network: 'a' })
    pass(10)
  }
  tally.add({ what: 'login', network: 'b' })
  expect(tally.take()).toEqual([
    { item: { what: 'login', network: 'a' }, count: 20, fromMs: 1000, toMs: 1190 },
    { item: { what: 'login', network: 'b' }, count: 1, fromMs: 1200, toMs: 1200 },
  ])
  expect(tally.take()).toEqual([])
})

test('10,000 from as many networks are 101 counts, and each of them is counted', () => {
  const { tally } = start()
  for (let n = 0; n < 10_000; n++) tally.add({ what: 'login', network: String(n) })
  const taken = tally.take()
  expect(taken).toHaveLength(101)
  expect(taken.reduce((sum, { count }) => sum + count, 0)).toBe(10_000)
  expect(taken.at(-1)).toMatchObject({ item: { what: 'login' }, count: 9900 })
})

test('what could not be told is told again, under the same id, and before what came meanwhile', async () => {
  const { tally } = start()
  const told: (readonly [string, number])[] = []
  let isDown = true
  let ids = 0
  const component = tellCounted({
    name: 'refusals',
    tally,
    async tell(counted) {
      for (const { id, count } of counted) told.push([id, count])
      if (isDown) throw new Error('down')
    },
    newId: () => `id${++ids}`,
    log: createLog('test', 'silent'),
    everyMs: 1,
  })
  tally.add({ what: 'login' })
  await component.start?.()
  await eventually(async () => told.length > 1)
  tally.add({ what: 'login' })
  isDown = false
  await component.close?.(1000)
  expect(new Set(told.map(String))).toEqual(new Set(['id1,1', 'id2,1']))
  expect(told.at(-1)).toEqual(['id2', 1])
})
