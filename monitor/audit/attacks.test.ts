import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import { createAppend } from '../events/append.ts'
import type { StoredEvent } from '../events/events.ts'
import { toEvent } from '../events/record.ts'
import type { Store } from '../store/store.ts'
import { createSigner, DAY_MS } from '../testing/checkpoints.ts'
import { stores } from '../testing/dead-letters.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { hashOf, link, START, verify } from './chain.ts'
import { exportLines, readExport } from './export.ts'
import { createSignedCheckpoints } from './signed-checkpoints.ts'
import { trustedHeadsFrom } from './trusted-heads.ts'
import { type Audit, createAudit } from './verify.ts'

const CHAIN = 'posta.events/0'
const logins = (from: number, to: number, partition = 0) =>
  Array.from({ length: to - from }, (_, n) =>
    toEvent(deliver(loggedIn(`${partition}-${from + n}`), from + n, partition), NOON_MS),
  )

/** Everything in a store: what an attacker who can read and write it has to work with. */
interface Copy {
  readonly events: readonly StoredEvent[]
  readonly checkpoints: readonly string[]
}

/** An attack on the events of one chain, of which there are ten. */
type Attack = (events: readonly StoredEvent[]) => readonly StoredEvent[]

const at = (events: readonly StoredEvent[], index: number) => {
  const event = events[index]
  if (!event) throw new Error('there is such an event')
  return event
}
const foreign = at(link(START, [toEvent(deliver(loggedIn('foreign')), NOON_MS)]), 0)
/** With every hash computed anew, as a skilled attacker does. */
const relinked = (events: readonly StoredEvent[]) => link(START, events)

const attacks: readonly (readonly [string, Attack, { seq: number; id: string; fault: string }])[] = [
  [
    'a text that was changed',
    (events) =>
      events.with(4, { ...at(events, 4), text: at(events, 4).text.replace('"user\\":\\"ana', '"user\\":\\"bob') }),
    { seq: 5, id: '0-4', fault: 'Its hash is not that of its text: one of the two was changed.' },
  ],
  [
    'an indexed field that was changed',
    (events) => events.with(4, { ...at(events, 4), user: 'bob' }),
    { seq: 5, id: '0-4', fault: 'Its user is not the one in its text.' },
  ],
  [
    'an event that was deleted, at the next',
    (events) => events.toSpliced(4, 1),
    { seq: 6, id: '0-5', fault: 'It follows number 4: the events between are missing.' },
  ],
  [
    'an event that was inserted, at the next',
    (events) => {
      const before = at(events, 3)
      const inserted = { ...foreign, seq: 5, previousHash: before.hash }
      const shifted = events.slice(4).map((event) => ({ ...event, seq: event.seq + 1 }))
      return [...events.slice(0, 4), { ...inserted, hash: hashOf(inserted) }, ...shifted]
    },
    { seq: 6, id: '0-4', fault: 'Its previous hash is not the hash of the event before it.' },
  ],
  [
    'two events that were swapped, at the first of them',
    (events) => events.with(4, { ...at(events, 5), seq: 5 }).with(5, { ...at(events, 4), seq: 6 }),
    { seq: 5, id: '0-5', fault: 'Its previous hash is not the hash of the event before it.' },
  ],
]

const cutOff = 'It is missing, and so are all after it: a checkpoint names number 10 of this chain.'
/** After each of these the chain is whole by itself. */
const shrewd: readonly (readonly [string, Attack, { seq: number; id?: string; fault: string }])[] = [
  ['its end cut off', (events) => events.slice(0, 7), { seq: 8, fault: cutOff }],
  ['nothing left of it', () => [], { seq: 1, fault: cutOff }],
  [
    'a text changed and every hash made anew',
    (events) =>
      relinked(events.with(4, { ...toEvent(deliver(loggedIn('0-4', 'bob'), 4), NOON_MS), ...tailOf(events, 4) })),
    {
      seq: 10,
      id: '0-9',
      fault:
        'A checkpoint names another hash here: this event, or one before it, was replaced, and every hash after that.',
    },
  ],
]

function tailOf(events: readonly StoredEvent[], index: number) {
  const { seq, hash, previousHash } = at(events, index)
  return { seq, hash, previousHash }
}

describe.each(stores)('with the %s store,', (_name, fresh) => {
  const disposals: (() => Promise<void>)[] = []
  let store: Store

  function open(): Store {
    const here: Fresh<Store> = fresh()
    disposals.push(here.dispose)
    return here.open()
  }

  beforeEach(async () => {
    store = open()
    await createAppend(store.events)([...logins(0, 10), ...logins(0, 3, 1)])
  })

  afterEach(async () => {
    for (const dispose of disposals.splice(0)) await dispose()
  })

  const signer = createSigner()
  const checkpointsOf = (of: Store) =>
    createSignedCheckpoints({ store: of, findKey: signer.findKey, deps: { now: () => NOON_MS } })

  /** As gateway does. */
  async function sign(of: Store, atMs = NOON_MS): Promise<string> {
    const jwt = signer.sign(await checkpointsOf(of).heads(), atMs)
    expect(await checkpointsOf(of).keep(jwt)).toEqual({ missing: [], storeIsNew: false })
    return jwt
  }

  async function copyOf(of: Store): Promise<Copy> {
    const events = (await Array.fromAsync(of.events.inChainOrder())).flat()
    return { events, checkpoints: (await of.checkpoints.list({ limit: 100 })).map(({ jwt }) => jwt) }
  }

  /** A store with what an attacker made of another. */
  async function storeOf({ events, checkpoints }: Copy): Promise<Store> {
    const made = open()
    if (events.length > 0) expect(await made.events.insert(events)).toBe('stored')
    for (const jwt of checkpoints) await made.checkpoints.keep({ atMs: NOON_MS, jwt })
    return made
  }

  async function attacked(attack: Attack): Promise<Store> {
    const { events, checkpoints } = await copyOf(store)
    const of = (chain: string) => events.filter((event) => event.chain === chain)
    return storeOf({ events: [...attack(of(CHAIN)), ...of('posta.events/1')], checkpoints })
  }

  const audit = async (of: Store) =>
    createAudit({ events: of.events, trustedHeads: checkpointsOf(of).trustedHeads, deps: { monotonicMs: () => 0 } })(
      undefined,
      new AbortController().signal,
    )
  const faultsIn = ({ chains }: { readonly chains: readonly Readonly<Audit['chains'][number]>[] }) =>
    chains.flatMap(({ chain, firstBad }) => (firstBad ? [{ chain, ...firstBad }] : []))

  /** What is found with only an export and, perhaps, a checkpoint that was kept elsewhere. */
  async function offline(of: Store, kept?: string) {
    const lines = (await Array.fromAsync(exportLines(of))).join('').split('\n').filter(Boolean)
    const { checkpoints, pages } = await readExport(
      (async function* () {
        yield* lines
      })(),
    )
    return faultsIn(await verify(pages, { trustedHeads: await trustedHeadsFrom({ kept }, checkpoints) }))
  }

  test('an untouched store is whole, by itself and by a checkpoint', async () => {
    expect(await audit(store)).toMatchObject({ ok: true, events: 13 })
    const kept = await sign(store)
    await createAppend(store.events)(logins(10, 12))
    expect(await audit(store)).toMatchObject({ ok: true, events: 15, checkpoint: new Date(NOON_MS).toISOString() })
    expect(await offline(store, kept)).toEqual([])
  })

  test.each(attacks)('verify finds %s, and names it', async (_what, attack, expected) => {
    const found = await audit(await attacked(attack))
    expect(found.ok).toBe(false)
    expect(faultsIn(found)).toEqual([{ chain: CHAIN, ...expected }])
  })

  test.each(shrewd)(
    'a chain with %s looks whole, but not by a checkpoint that the store holds',
    async (_what, attack, expected) => {
      expect(await audit(await attacked(attack))).toMatchObject({ ok: true })
      await sign(store)
      const found = await audit(await attacked(attack))
      expect(found.ok).toBe(false)
      expect(faultsIn(found)).toEqual([{ chain: CHAIN, ...expected }])
    },
  )

  test.each(shrewd)(
    'a chain with %s, and no checkpoint left, looks whole, but not by a checkpoint that was kept elsewhere',
    async (_what, attack, expected) => {
      const kept = await sign(store)
      const { events } = await copyOf(await attacked(attack))
      const robbed = await storeOf({ events, checkpoints: [] })
      expect(await audit(robbed)).toMatchObject({ ok: true })
      expect(await offline(robbed)).toEqual([])
      expect(await offline(robbed, kept)).toEqual([{ chain: CHAIN, ...expected }])
      // Gateway sends the last one that it signed before it signs another.
      expect(await checkpointsOf(robbed).keep(kept)).toMatchObject({
        missing: [{ chain: CHAIN, seq: 10 }],
        storeIsNew: false,
      })
      expect(await audit(robbed)).toMatchObject({ ok: false })
    },
  )

  test('an old copy of the whole store, with its old checkpoint, looks whole, but not by a newer checkpoint', async () => {
    await sign(store)
    const old = await copyOf(store)
    await createAppend(store.events)([...logins(10, 14), ...logins(0, 2, 2)])
    const kept = await sign(store, NOON_MS + 60_000)
    const replayed = await storeOf(old)
    expect(await audit(replayed)).toMatchObject({ ok: true, events: 13 })
    expect(await offline(replayed)).toEqual([])
    const missing = (chain: string, from: number, to: number) => ({
      chain,
      seq: from,
      fault: `It is missing, and so are all after it: a checkpoint names number ${to} of this chain.`,
    })
    expect(await offline(replayed, kept)).toEqual([missing(CHAIN, 11, 14), missing('posta.events/2', 1, 2)])
    // What goes on from the old copy does not hide it.
    await createAppend(replayed.events)([...logins(20, 24), ...logins(0, 2, 2)])
    expect(await offline(replayed, kept)).toMatchObject([{ chain: CHAIN, seq: 14, id: '0-23' }])
  })

  test('a store that has nothing from before a checkpoint is new, and not one that lost a part', async () => {
    const kept = await sign(store)
    const heads = await checkpointsOf(store).heads()
    const empty = open()
    // Asked again it says the same, although it has the checkpoint by then.
    for (let times = 0; times < 2; times++)
      expect(await checkpointsOf(empty).keep(kept)).toEqual({ missing: heads, storeIsNew: true })
    expect(await audit(empty)).toMatchObject({ ok: false, events: 0 })

    const later = (n: number) => [toEvent(deliver(loggedIn(`later-${n}`), n), NOON_MS + 5000)]
    const began = await storeOf({ events: link(START, later(0)), checkpoints: [] })
    expect(await checkpointsOf(began).keep(kept)).toEqual({ missing: heads, storeIsNew: true })

    const [old] = logins(0, 1)
    const cut = await storeOf({ events: link(START, old ? [old, ...later(1)] : []), checkpoints: [] })
    expect(await checkpointsOf(cut).keep(kept)).toEqual({ missing: heads, storeIsNew: false })

    // Without its first events, or with a checkpoint of another day, it was in use before.
    const beheaded = await storeOf({ events: link(START, [...later(0), ...later(1)]).slice(1), checkpoints: [] })
    expect(await checkpointsOf(beheaded).keep(kept)).toMatchObject({ storeIsNew: false })
    const emptied = open()
    await emptied.checkpoints.keep({ atMs: NOON_MS - DAY_MS, jwt: signer.sign(heads, NOON_MS - DAY_MS) })
    expect(await checkpointsOf(emptied).keep(kept)).toMatchObject({ storeIsNew: false })
  })

  test('a checkpoint that gateway has not signed is refused; in the store it is a fault', async () => {
    const other = createSigner()
    const forged = other.sign(await checkpointsOf(store).heads(), NOON_MS)
    await expect(checkpointsOf(store).keep(forged)).rejects.toMatchObject({ code: 'invalid-input' })
    await store.checkpoints.keep({ atMs: NOON_MS, jwt: forged })
    expect(await audit(store)).toMatchObject({
      ok: false,
      fault: 'The newest checkpoint is not signed by a key of gateway.',
    })
  })
})
