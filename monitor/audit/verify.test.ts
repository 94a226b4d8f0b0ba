import { expect, test } from 'bun:test'
import type { Events } from '../events/events.ts'
import { toEvent } from '../events/record.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { link, START } from './chain.ts'
import type { CurrentHeads } from './signed-checkpoints.ts'
import { createAudit } from './verify.ts'

const stored = [0, 1].flatMap((partition) =>
  link(
    START,
    Array.from({ length: 5 }, (_, n) => toEvent(deliver(loggedIn(`${partition}-${n}`), n, partition), NOON_MS)),
  ),
)

/** Pages of two; each takes a second of the clock. */
function setUp(secondsPerPage = 1, current: CurrentHeads = { heads: [], starts: [] }) {
  let nowMs = 0
  const inChainOrder: Events['inChainOrder'] = async function* (after) {
    const start = after ? stored.findIndex(({ chain, seq }) => chain === after.chain && seq === after.seq) + 1 : 0
    for (let next = start; next < stored.length; next += 2) {
      nowMs += secondsPerPage * 1000
      yield stored.slice(next, next + 2)
    }
  }
  return createAudit({
    events: { inChainOrder },
    trustedHeads: async () => current,
    deps: { monotonicMs: () => nowMs },
  })
}

const staying = new AbortController().signal

test('a store that can be read in time is verified as a whole', async () => {
  expect(await setUp()(undefined, staying)).toMatchObject({
    ok: true,
    events: 10,
    chains: [
      { chain: 'posta.events/0', events: 5, head: { seq: 5 } },
      { chain: 'posta.events/1', events: 5, head: { seq: 5 } },
    ],
  })
  expect(await setUp()(undefined, staying)).not.toHaveProperty('next')
})

test('what takes too long is verified in parts, which together are the whole', async () => {
  const audit = setUp(15)
  const first = await audit(undefined, staying)
  expect(first).toMatchObject({ ok: true, events: 4, chains: [{ chain: 'posta.events/0', head: { seq: 4 } }] })
  let [events, next, parts] = [first.events, first.next, 1]
  while (next) {
    const part = await audit(next, staying)
    expect(part.ok).toBe(true)
    events += part.events
    next = part.next
    parts++
  }
  expect([events, parts]).toEqual([10, 3])
})

test('it stops when the caller has gone', async () => {
  expect(await setUp()(undefined, AbortSignal.abort())).toMatchObject({ events: 2, next: expect.any(String) })
})

test('a third at the same time is refused, and is served later', async () => {
  const audit = setUp()
  const both = [audit(undefined, staying), audit(undefined, staying)]
  await expect(audit(undefined, staying)).rejects.toMatchObject({ code: 'overloaded', retryAfterS: 20 })
  await Promise.all(both)
  expect((await audit(undefined, staying)).ok).toBe(true)
})

test('a cursor that it did not give is refused', async () => {
  await expect(setUp()('x', staying)).rejects.toMatchObject({ code: 'malformed-request' })
})

test('a checkpoint that cannot be used makes the audit fail and is reported', async () => {
  const current = { heads: [], starts: [], fault: 'Nobody has signed it.' }
  expect(await setUp(1, current)(undefined, staying)).toMatchObject({
    ok: false,
    fault: 'Nobody has signed it.',
    chains: [{ events: 5 }, { events: 5 }],
  })
})

test('an event that a checkpoint names is missed, also where the answer comes in parts', async () => {
  const heads = [0, 1].map((partition) => ({ chain: `posta.events/${partition}`, seq: 6, hash: 'a'.repeat(64) }))
  for (const secondsPerPage of [1, 15]) {
    const audit = setUp(secondsPerPage, { heads, starts: [], atMs: NOON_MS })
    const found: unknown[] = []
    let next: string | undefined
    do {
      const part = await audit(next, staying)
      expect(part.checkpoint).toBe(new Date(NOON_MS).toISOString())
      found.push(...part.chains.flatMap(({ chain, firstBad }) => (firstBad ? { chain, ...firstBad } : [])))
      next = part.next
    } while (next)
    const fault = 'It is missing, and so are all after it: a checkpoint names number 6 of this chain.'
    expect(found).toEqual(heads.map(({ chain }) => ({ chain, seq: 6, fault })))
  }
})

test('one that fails leaves its place to others', async () => {
  const failing = createAudit({
    events: { inChainOrder: async function* () {} },
    trustedHeads: () => Promise.reject(new Error('The store is down.')),
    deps: { monotonicMs: () => 0 },
  })
  for (let times = 0; times < 3; times++)
    await expect(failing(undefined, staying)).rejects.toThrow('The store is down.')
})

test('it goes on for 20 seconds, and not longer', async () => {
  // The last page is read at 20 s, or at 20.005 s.
  expect(await setUp(4)(undefined, staying)).not.toHaveProperty('next')
  expect(await setUp(4.001)(undefined, staying)).toMatchObject({ events: 10, next: expect.any(String) })
})
