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
let many: ReturnType<typeof createDecideMany>

const redriven = { to: 'redriven' } as const
const discarded = { to: 'discarded', reason: 'A test of ours.' } as const

beforeEach(() => {
  here = freshFile(openEmbedded)
  store = here.open()
  broker = fakeBroker()
  nowMs = NOON_MS + 10_000
  const deps = { now: () => nowMs }
  const { deadLetters } = store
  many = createDecideMany({ deadLetters, decisions: createDecisions({ deadLetters, broker, deps }), deps })
})
afterEach(async () => {
  await here.dispose()
})

test('a preview says how many there are, and which, and changes nothing', async () => {
  await store.deadLetters.add([...letters(120), unreadable])
  const asked = { filter: {}, choice: redriven }
  const preview = await many.preview(asked)
  expect(preview).toMatchObject({ count: 120, orMore: false })
  expect(preview.ids).toEqual(letters(100).map(({ id }) => id))
  expect(await many.preview({ ...asked, filter: { operation: 'op-7' } })).toMatchObject({ count: 1 })
  // What cannot be redriven can be discarded.
  expect(await many.preview({ ...asked, choice: discarded })).toMatchObject({ count: 121 })
  expect(broker.published).toEqual([])
  expect(await many.preview(asked)).toEqual(preview)
})

test('all that fit are done, the oldest first, in bounded portions, each once', async () => {
  await store.deadLetters.add([...letters(230), unreadable])
  const portions: number[] = []
  let cursor: string | undefined
  do {
    const { done, already, refused, next } = await many.decide({ filter: {}, by: 'olga', choice: redriven, cursor })
    expect({ already, refused }).toEqual({ already: 0, refused: [] })
    portions.push(done)
    cursor = next
  } while (cursor)
  expect(portions).toEqual([100, 100, 30])
  expect(broker.ids('ce_redrive')).toEqual(letters(230).map(({ id }) => `${id}.redriven`))
  for (const messages of broker.published) expect(messages.length).toBeLessThanOrEqual(40)
  expect(await many.decide({ filter: {}, by: 'olga', choice: redriven })).toEqual({ done: 0, already: 0, refused: [] })
  expect(await many.decide({ filter: {}, by: 'olga', choice: discarded })).toMatchObject({ done: 1 })
})

test('those that were received together go in the order of their offsets, whatever their ids sort by', async () => {
  const together = [8, 9, 10, 11].map((offset) => setAside(deliver(requested(`op-${offset}`), offset)))
  await store.deadLetters.add(together)
  await many.decide({ filter: {}, by: 'olga', choice: redriven })
  expect(broker.ids('ce_redrive')).toEqual(together.map(({ id }) => `${id}.redriven`))
})

test('what fails again and is set aside anew is not met by the calls that go on', async () => {
  await store.deadLetters.add(letters(150))
  const first = await many.decide({ filter: {}, by: 'olga', choice: redriven })
  expect(first).toMatchObject({ done: 100 })
  nowMs += 5
  const again = setAside(deliver(requested('op-0'), 9999), 'It failed.', 10_003)
  await store.deadLetters.add([again])
  const second = await many.decide({ filter: {}, by: 'olga', choice: redriven, cursor: first.next })
  expect(second).toEqual({ done: 50, already: 0, refused: [] })
  expect(await store.deadLetters.get(again.id)).toMatchObject({ status: 'open' })
  // A new request is about it too.
  expect(await many.decide({ filter: {}, by: 'olga', choice: redriven })).toMatchObject({ done: 1 })
})

test('one that was decided otherwise and not yet published is refused, one decided so is carried out', async () => {
  const [first, second] = letters(2)
  if (!first || !second) throw new Error('there are two')
  await store.deadLetters.add([first, second])
  const decision = { event: 'e', by: 'oscar', at: new Date(NOON_MS).toISOString() }
  await store.deadLetters.decide([
    { id: first.id, decision: { ...decision, ...discarded } },
    { id: second.id, decision: { ...decision, ...redriven } },
  ])
  expect(await many.decide({ filter: {}, by: 'olga', choice: redriven })).toEqual({
    done: 0,
    already: 1,
    refused: [{ id: first.id, detail: `It was discarded by oscar at ${decision.at}.` }],
  })
  expect(broker.ids('ce_redrive')).toEqual(['e'])
})

test('while the broker is down it is refused, and what was recorded stands', async () => {
  await store.deadLetters.add(letters(50))
  broker.fail(new Error('The broker is down.'))
  await expect(many.decide({ filter: {}, by: 'olga', choice: redriven })).rejects.toMatchObject({ code: 'overloaded' })
  expect(await store.deadLetters.unconfirmed({ limit: 99 })).toHaveLength(20)
  broker.fail(undefined)
  expect(await many.decide({ filter: {}, by: 'oscar', choice: redriven })).toMatchObject({ done: 30, already: 20 })
  expect(new Set(broker.ids('ce_redrive')).size).toBe(50)
})

test('a cursor that is none is refused', async () => {
  const asked = { filter: {}, by: 'olga', choice: redriven, cursor: 'x' }
  await expect(many.preview(asked)).rejects.toMatchObject({ code: 'malformed-request' })
  await expect(many.decide(asked)).rejects.toMatchObject({ code: 'malformed-request' })
})
