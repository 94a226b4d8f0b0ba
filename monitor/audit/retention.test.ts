import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { eventually } from '@posta/common/testing/eventually.ts'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import { createAppend } from '../events/append.ts'
import { toEvent } from '../events/record.ts'
import type { Store } from '../store/store.ts'
import { createSigner, DAY_MS } from '../testing/checkpoints.ts'
import { setAside, stores } from '../testing/dead-letters.ts'
import { deliver, loggedIn, NOON_MS, requested } from '../testing/messages.ts'
import { verify } from './chain.ts'
import { exportLines, readExport } from './export.ts'
import { DECIDED_RETENTION_MS, retention } from './retention.ts'
import { createSignedCheckpoints } from './signed-checkpoints.ts'
import { EVENT_RETENTION_MS, trustedHeadsFrom } from './trusted-heads.ts'
import { createAudit } from './verify.ts'

const log = { info() {}, warn() {} }

test('events are kept for 400 days at least, and dead letters for 90 days after a decision', () => {
  expect([EVENT_RETENTION_MS, DECIDED_RETENTION_MS]).toEqual([400 * DAY_MS, 90 * DAY_MS])
})

const CHAINS = ['posta.events/0', 'posta.events/1']

describe.each(stores)('with the %s store,', (_name, fresh) => {
  let here: Fresh<Store>
  let store: Store
  let nowMs: number
  let signer: ReturnType<typeof createSigner>

  beforeEach(() => {
    here = fresh()
    store = here.open()
    nowMs = NOON_MS
    signer = createSigner()
  })
  afterEach(async () => {
    await here.dispose()
  })

  const deps = { now: () => nowMs, monotonicMs: () => 0 }
  const checkpointsOf = (of: Store) =>
    createSignedCheckpoints({ store: of, findKey: (kid) => signer.findKey(kid), deps })

  /** Adds so many events to each of the two chains. */
  async function live(counts: readonly [number, number]): Promise<void> {
    const events = counts.flatMap((count, partition) =>
      Array.from({ length: count }, (_, n) =>
        toEvent(deliver(loggedIn(`${nowMs}-${partition}-${n}`), n, partition), nowMs),
      ),
    )
    await createAppend(store.events)(events)
  }

  async function sign(): Promise<string> {
    const jwt = signer.sign(await checkpointsOf(store).heads(), nowMs)
    expect(await checkpointsOf(store).keep(jwt)).toEqual({ missing: [], storeIsNew: false })
    return jwt
  }

  /** Runs until each replica has done all its tasks. */
  async function retain(...replicas: readonly Store[]): Promise<void> {
    const running = replicas.map((each) => {
      let rounds = 0
      const trustedHeads = () => {
        rounds += 1
        return checkpointsOf(each).trustedHeads()
      }
      const component = retention({ store: each, trustedHeads, deps, log, everyMs: 1 })
      return { component, rounds: () => rounds }
    })
    for (const { component } of running) await component.start?.()
    await eventually(() => running.every(({ rounds }) => rounds() >= 2))
    for (const { component } of running) await component.close?.(1000)
  }

  /** The first and the last number of each chain. */
  async function ranges(): Promise<string[]> {
    const events = (await Array.fromAsync(store.events.inChainOrder())).flat()
    return CHAINS.map((chain) => {
      const seqs = events.filter((event) => event.chain === chain).map(({ seq }) => seq)
      return `${seqs[0]} to ${seqs.at(-1)}`
    })
  }
  const audit = () =>
    createAudit({ events: store.events, trustedHeads: checkpointsOf(store).trustedHeads, deps })(
      undefined,
      new AbortController().signal,
    )

  test('events are kept until a checkpoint that names them is 400 days older than the newest, and the chains go on', async () => {
    await live([3, 2])
    await sign()
    nowMs += EVENT_RETENTION_MS - 1000
    await live([2, 0])
    await sign()
    await retain(store)
    expect(await ranges()).toEqual(['1 to 5', '1 to 2'])

    nowMs += 1000
    const kept = await sign()
    await retain(store)
    // What the checkpoint names stays: there the chains begin, also one in which nothing has happened since.
    expect(await ranges()).toEqual(['3 to 5', '2 to 2'])
    expect(await audit()).toMatchObject({ ok: true, events: 4 })
    await live([1, 1])
    expect(await ranges()).toEqual(['3 to 6', '2 to 3'])
    expect(await audit()).toMatchObject({ ok: true, events: 6 })
    // What a checkpoint names that is older than the beginning is not missed.
    const older = signer.sign(
      CHAINS.map((chain) => ({ chain, seq: 1, hash: 'f'.repeat(64) })),
      NOON_MS - DAY_MS,
    )
    expect(await checkpointsOf(store).keep(older)).toEqual({ missing: [], storeIsNew: false })

    const { checkpoints, pages } = await readExport(
      (async function* () {
        for await (const lines of exportLines(store)) yield* lines.split('\n').filter(Boolean)
      })(),
    )
    const { chains } = await verify(pages, { trustedHeads: await trustedHeadsFrom({ kept }, checkpoints) })
    expect(chains.map(({ events, firstBad }) => ({ events, firstBad }))).toEqual([
      { events: 4, firstBad: undefined },
      { events: 2, firstBad: undefined },
    ])
  })

  test('pruning goes in portions, by several at once, and takes the checkpoints that are older with it', async () => {
    await live([10, 520])
    await sign()
    nowMs += DAY_MS
    await live([10, 10])
    await sign()
    // Each gateway key signs for a while: the newest checkpoint vouches for the keys that are gone.
    for (let rotation = 0; rotation < 3; rotation++) signer.rotate()
    nowMs += EVENT_RETENTION_MS
    await live([1, 0])
    await sign()
    await retain(store, here.open(), here.open())
    expect(await ranges()).toEqual(['20 to 21', '530 to 530'])
    expect(await audit()).toMatchObject({ ok: true, events: 3 })
    expect(await store.checkpoints.list({ limit: 9 })).toHaveLength(2)
  }, 60_000)

  test('without a newer checkpoint nothing is pruned, whatever the clock here says', async () => {
    await live([3, 3])
    await retain(store)
    await sign()
    nowMs += 10 * EVENT_RETENTION_MS
    await live([3, 3])
    await retain(store)
    expect(await ranges()).toEqual(['1 to 6', '1 to 6'])
  })

  test('a checkpoint with a time in the future is refused', async () => {
    await live([1, 0])
    const jwt = signer.sign(await checkpointsOf(store).heads(), nowMs + EVENT_RETENTION_MS)
    await expect(checkpointsOf(store).keep(jwt)).rejects.toMatchObject({ code: 'invalid-input' })
  })

  test('a checkpoint that gateway has not signed prunes nothing, and does not hide what someone deleted', async () => {
    await live([6, 0])
    const forged = createSigner().sign(await checkpointsOf(store).heads(), nowMs)
    await store.checkpoints.keep({ atMs: nowMs, jwt: forged })
    nowMs += EVENT_RETENTION_MS
    await sign()
    await retain(store)
    expect(await ranges()).toContain('1 to 6')
    expect(await audit()).toMatchObject({
      ok: false,
      fault: 'The checkpoint at which the chains begin is not signed by gateway.',
    })
    expect(await store.events.prune('posta.events/0', 4, 9)).toBe(3)
    expect(await audit()).toMatchObject({ chains: [{ firstBad: { seq: 4 } }] })
  })

  test('a signed checkpoint that is not old enough is not accepted as a beginning', async () => {
    await live([6, 0])
    await sign()
    nowMs += EVENT_RETENTION_MS - 1000
    await live([1, 0])
    await sign()
    // Someone gives it an older date in the store.
    const [, young] = await store.checkpoints.list({ limit: 2 })
    await store.checkpoints.prune(nowMs)
    await store.checkpoints.keep({ atMs: NOON_MS - DAY_MS, jwt: young?.jwt ?? '' })
    await store.events.prune('posta.events/0', 6, 9)
    const found = await audit()
    expect(found).toMatchObject({ ok: false, chains: [{ firstBad: { seq: 6 } }] })
    expect(found.fault).toBeDefined()
  })

  test('a chain that lacks the event at which it should begin is left as it is', async () => {
    await live([2, 2])
    const [first, second] = await checkpointsOf(store).heads()
    if (!first || !second) throw new Error('there are two chains')
    await checkpointsOf(store).keep(signer.sign([{ ...first, hash: 'f'.repeat(64) }, second], nowMs))
    nowMs += EVENT_RETENTION_MS
    await live([1, 1])
    await sign()
    await retain(store)
    expect(await ranges()).toEqual(['1 to 3', '2 to 3'])
    expect(await audit()).toMatchObject({ ok: false, chains: [{ firstBad: { seq: 2 } }, {}] })
  })

  test('dead letters are deleted 90 days after they were decided; open ones stay', async () => {
    const letters = ['redriven', 'discarded', 'open'].map((id, n) => setAside(deliver(requested(id), n)))
    await store.deadLetters.add(letters)
    const [redriven, discarded, left] = letters
    if (!redriven || !discarded || !left) throw new Error('there are three')
    const by = { by: 'olga', at: new Date(nowMs).toISOString() }
    const decisions = [
      { id: redriven.id, decision: { ...by, event: 'a', to: 'redriven' as const } },
      { id: discarded.id, decision: { ...by, event: 'b', to: 'discarded' as const, reason: 'A test.' } },
    ]
    await store.deadLetters.decide(decisions)
    await store.deadLetters.confirm(decisions)
    const ids = async () => (await store.deadLetters.list({}, { limit: 9 })).map(({ id }) => id)
    nowMs += DECIDED_RETENTION_MS
    await retain(store)
    expect(await ids()).toHaveLength(3)
    nowMs += 1
    await retain(store)
    expect(await ids()).toEqual([left.id])
    nowMs += 100 * DECIDED_RETENTION_MS
    await retain(store)
    expect(await ids()).toEqual([left.id])
  })
})
