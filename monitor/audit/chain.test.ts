import { describe, expect, test } from 'bun:test'
import type { StoredEvent } from '../events/events.ts'
import { toEvent } from '../events/record.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { hashOf, link, START, verify } from './chain.ts'

const chainOf = (count: number, partition = 0) =>
  link(
    START,
    Array.from({ length: count }, (_, n) => toEvent(deliver(loggedIn(`${partition}-${n}`), n, partition), NOON_MS)),
  )

async function* pagesOf(events: readonly StoredEvent[], size = 2) {
  for (let start = 0; start < events.length; start += size) yield events.slice(start, start + size)
}

const replaced = (events: readonly StoredEvent[], index: number, changes: Partial<StoredEvent>) =>
  events.map((event, each) => (each === index ? { ...event, ...changes } : event))

const faultIn = async (events: readonly StoredEvent[]) => (await verify(pagesOf(events))).chains[0]?.firstBad

test('an event is linked to the one before it, and the first to none', () => {
  const [first, second] = chainOf(2)
  expect(first).toMatchObject({ seq: 1, previousHash: '0'.repeat(64) })
  expect(second).toMatchObject({ seq: 2, previousHash: first?.hash ?? '' })
})

test('the hash is what its doc says, so that others can check it with other tools', () => {
  const event = { chain: 't.events/0', seq: 1, previousHash: START.hash, text: '{}' }
  // printf 'posta audit chain 1\nt.events/0\n1\n%064d\n{}' 0 | sha256sum
  expect(hashOf(event)).toBe('ab5da0dfddc85d8558653871ec93cde77e0add18360410494b56bfff4228786c')
})

describe('verify', () => {
  test('reports the events and the head of each whole chain', async () => {
    const [one, two] = [chainOf(5, 0), chainOf(3, 1)]
    expect(await verify(pagesOf([...one, ...two]))).toEqual({
      chains: [
        { chain: 'posta.events/0', events: 5, head: { seq: 5, hash: one[4]?.hash ?? '' } },
        { chain: 'posta.events/1', events: 3, head: { seq: 3, hash: two[2]?.hash ?? '' } },
      ],
    })
    expect(await verify(pagesOf([]))).toEqual({ chains: [] })
  })

  test('finds a text that was changed', async () => {
    const events = chainOf(5)
    const text = events[2]?.text.replaceAll('ana', 'bob') ?? ''
    expect(await faultIn(replaced(events, 2, { text }))).toEqual({
      seq: 3,
      id: '0-2',
      fault: 'Its hash is not that of its text: one of the two was changed.',
    })
  })

  test('finds a text that was changed together with its hash', async () => {
    const events = chainOf(5)
    const changed = { ...events[2], text: events[2]?.text.replaceAll('ana', 'bob') ?? '' } as StoredEvent
    const fields = { user: 'bob', text: changed.text, hash: hashOf(changed) }
    expect(await faultIn(replaced(events, 2, fields))).toMatchObject({ seq: 4, id: '0-3' })
  })

  test.each([
    ['id', 'x'],
    ['type', 'posta.user.registered'],
    ['timeMs', 1],
    ['minute', 1],
    ['user', 'bob'],
    ['user', undefined],
    ['operation', 'op-1'],
    ['durationMs', 1],
  ] as const)('finds an indexed %s that is not the one in the text', async (name, value) => {
    expect(await faultIn(replaced(chainOf(3), 1, { [name]: value }))).toMatchObject({
      seq: 2,
      fault: `Its ${name} is not the one in its text.`,
    })
  })

  test('finds an event that is missing, at the beginning too, one moved from another chain, and one inserted', async () => {
    const events = chainOf(5)
    expect(await faultIn(events.toSpliced(2, 1))).toMatchObject({ seq: 4, id: '0-3' })
    expect(await faultIn(events.slice(1))).toMatchObject({ seq: 2, id: '0-1' })
    const [foreign] = chainOf(1, 1)
    expect(await faultIn(replaced(chainOf(1), 0, { ...foreign, chain: 'posta.events/0' }))).toMatchObject({ seq: 1 })
    const [inserted] = link({ seq: 2, hash: events[1]?.hash ?? '' }, [toEvent(deliver(loggedIn('new')), NOON_MS)])
    expect(await faultIn(events.toSpliced(2, 0, ...(inserted ? [inserted] : [])))).toMatchObject({ seq: 3, id: '0-2' })
  })

  test('reports a text that monitor did not write, and goes on with the other chains', async () => {
    const [event] = chainOf(1)
    const text = 'not JSON'
    const bad = { ...event, text, hash: hashOf({ ...event, text } as StoredEvent) } as StoredEvent
    const { chains } = await verify(pagesOf([bad, ...chainOf(2, 1)]))
    expect(chains[0]?.firstBad?.fault).toBe('Its text cannot be read.')
    expect(chains[1]).not.toHaveProperty('firstBad')
  })

  test('names the first bad event of a chain, not what follows from it', async () => {
    const events = chainOf(6)
    expect(await faultIn(replaced(replaced(events, 4, { user: 'x' }), 1, { user: 'x' }))).toMatchObject({ seq: 2 })
  })

  test('stops when told to, and continues from there as if it had not stopped', async () => {
    const events = [...chainOf(5, 0), ...chainOf(3, 1)]
    const first = await verify(pagesOf(events), { enough: () => true })
    expect(first.stoppedAt).toMatchObject({ chain: 'posta.events/0', seq: 2 })
    const rest = await verify(pagesOf(events.slice(2)), { after: first.stoppedAt })
    expect(rest.stoppedAt).toBeUndefined()
    expect(rest.chains.map(({ chain, events, firstBad }) => ({ chain, events, firstBad }))).toEqual([
      { chain: 'posta.events/0', events: 3, firstBad: undefined },
      { chain: 'posta.events/1', events: 3, firstBad: undefined },
    ])
  })

  test('an event before the beginning that a checkpoint names is skipped, and the chain is whole from there', async () => {
    const events = chainOf(5)
    const start = (seq: number) => ({ chain: 'posta.events/0', seq, hash: events[seq - 1]?.hash ?? '' })
    const from = (first: number, seq: number) =>
      verify(pagesOf(events.slice(first - 1)), { trustedHeads: { heads: [], starts: [start(seq)] } })
    const whole = { chain: 'posta.events/0', events: 3, head: { seq: 5, hash: events[4]?.hash ?? '' } }
    expect(await from(1, 3)).toEqual({ chains: [whole] })
    expect(await from(3, 3)).toEqual({ chains: [whole] })
    expect((await from(4, 3)).chains[0]?.firstBad).toMatchObject({ seq: 4, id: '0-3' })
    // Without an event at all, it names the one at which the chain begins.
    expect((await from(6, 3)).chains[0]).toMatchObject({ events: 0, firstBad: { seq: 3 } })
  })

  test('stops at a thousand chains, as many as nobody has, and goes on when asked to', async () => {
    const events = Array.from({ length: 1003 }, (_, n) => chainOf(1, n)).flat()
    const { chains, stoppedAt } = await verify(pagesOf(events, 1))
    expect(chains).toHaveLength(1001)
    expect(stoppedAt).toMatchObject({ chain: 'posta.events/1000', seq: 1 })
    expect((await verify(pagesOf(events.slice(1001), 1), { after: stoppedAt })).chains).toHaveLength(2)
  })
})
