import { afterEach, beforeEach, expect, test } from 'bun:test'
import { type Fresh, freshFile } from '@posta/common/testing/fresh-store.ts'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { fakeBroker, letters, setAside, unreadable } from '../testing/dead-letters.ts'
import { deliver, NOON_MS, requested } from '../testing/messages.ts'
import { createDecideMany } from './decide-many.ts'
import { createDecisions } from './decisions.ts'

let here: Fresh<Store>
let store: Store
let broker: ReturnType<typeof fakeBroker>
let nowMs: number
let decideMany: ReturnType<typeof createDecideMany>

const redriven = { to: 'redriven' } as const
const discarded = { to: 'discarded', reason: 'A test of ours.' } as const

beforeEach(() => {
  here = freshFile(openEmbedded)
  store = here.open()
  broker = fakeBroker()
  nowMs = NOON_MS + 10_000
  const deps = { now: () => nowMs }
  const { deadLetters } = store
  decideMany = createDecideMany({ deadLetters, decisions: createDecisions({ deadLetters, broker, deps }), deps })
})
afterEach(async () => {
  await here.dispose()
})

type Asked = Partial<Omit<Parameters<typeof decideMany>[0], 'dryRun'>>

async function preview(asked: Asked = {}) {
  const answer = await decideMany({ filter: {}, by: 'olga', choice: redriven, ...asked, dryRun: true })
  if (!answer.dryRun) throw new Error('a dry run was asked for')
  return answer
}

async function decide(asked: Asked = {}) {
  const answer = await decideMany({ filter: {}, by: 'olga', choice: redriven, ...asked, dryRun: false })
  if (answer.dryRun) throw new Error('no dry run was asked for')
  return answer
}

const none = { dryRun: false as const, done: 0, already: 0, refusals: [] }

test('a preview says how many there are, and which, and changes nothing', async () => {
  await store.deadLetters.add([...letters(120), unreadable])
  const first = await preview()
  expect(first).toMatchObject({ count: 120, orMore: false })
  expect(first.ids).toEqual(letters(100).map(({ id }) => id))
  expect(await preview({ filter: { operation: 'op-7' } })).toMatchObject({ count: 1 })
  // What cannot be redriven can be discarded.
  expect(await preview({ choice: discarded })).toMatchObject({ count: 121 })
  expect(broker.published).toEqual([])
  expect(await preview()).toEqual(first)
})

test('all that the filter selects are decided, the oldest first, in bounded portions, each once', async () => {
  await store.deadLetters.add([...letters(230), unreadable])
  const portions: number[] = []
  let cursor: string | undefined
  do {
    const { done, next, ...rest } = await decide({ cursor })
    expect({ ...rest, done: 0 }).toEqual(none)
    portions.push(done)
    cursor = next
  } while (cursor)
  expect(portions).toEqual([100, 100, 30])
  expect(broker.ids('ce_redrive')).toEqual(letters(230).map(({ id }) => `${id}.redriven`))
  for (const messages of broker.published) expect(messages.length).toBeLessThanOrEqual(40)
  expect(await decide()).toEqual(none)
  expect(await decide({ choice: discarded })).toMatchObject({ done: 1 })
})

test('those that were received together are redriven in the order of their offsets, not of their ids', async () => {
  const together = [8, 9, 10, 11].map((offset) => setAside(deliver(requested(`op-${offset}`), offset)))
  await store.deadLetters.add(together)
  await decide()
  expect(broker.ids('ce_redrive')).toEqual(together.map(({ id }) => `${id}.redriven`))
})

test('a message that fails again becomes a new dead letter, which the calls that go on do not select', async () => {
  await store.deadLetters.add(letters(150))
  const first = await decide()
  expect(first).toMatchObject({ done: 100 })
  nowMs += 5
  const again = setAside(deliver(requested('op-0'), 9999), 'It failed.', 10_003)
  await store.deadLetters.add([again])
  const second = await decide({ cursor: first.next })
  expect(second).toEqual({ ...none, done: 50 })
  expect(await store.deadLetters.get(again.id)).toMatchObject({ status: 'open' })
  // A call without a cursor selects it.
  expect(await decide()).toMatchObject({ done: 1 })
})

test('of two decisions that are not published yet, the opposite one is refused and the same one carried out', async () => {
  const [first, second] = letters(2)
  if (!first || !second) throw new Error('there are two')
  await store.deadLetters.add([first, second])
  const decision = { event: 'e', by: 'oscar', at: new Date(NOON_MS).toISOString() }
  await store.deadLetters.decide([
    { id: first.id, decision: { ...decision, ...discarded } },
    { id: second.id, decision: { ...decision, ...redriven } },
  ])
  expect(await decide()).toEqual({
    ...none,
    already: 1,
    refusals: [{ id: first.id, detail: `It was discarded by oscar at ${decision.at}.` }],
  })
  expect(broker.ids('ce_redrive')).toEqual(['e'])
})

test('while the broker is down the call is refused, and what it recorded stands', async () => {
  await store.deadLetters.add(letters(50))
  broker.fail(new Error('The broker is down.'))
  await expect(decide()).rejects.toMatchObject({ code: 'overloaded' })
  expect(await store.deadLetters.unconfirmed({ limit: 99 })).toHaveLength(20)
  broker.fail(undefined)
  expect(await decide({ by: 'oscar' })).toMatchObject({ done: 30, already: 20 })
  expect(new Set(broker.ids('ce_redrive')).size).toBe(50)
})

test('a cursor that it did not give is refused', async () => {
  await expect(preview({ cursor: 'x' })).rejects.toMatchObject({ code: 'malformed-request' })
  await expect(decide({ cursor: 'x' })).rejects.toMatchObject({ code: 'malformed-request' })
})
