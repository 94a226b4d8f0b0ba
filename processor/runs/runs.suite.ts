import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import type { Store } from '../store/store.ts'
import { input as inputOfAna, newRun } from '../testing/run-to-end.ts'
import { CANCEL, type Head, type Run, type RunInput, type RunRecord, type Runs, signalInput } from './runs.ts'

const NOW_MS = 1_000_000
const kinds = [{ type: sample.type, version: 1 }]
const at = (second: number) => new Date(Date.UTC(2026, 10, 23, 12, 0, second)).toISOString()

/** A run that nobody has taken yet, due at `NOW_MS`. */
export function aRun(id: string, head: Partial<Head> = {}, more: Partial<Run> = {}): Run {
  const ready = { state: 'ready', epoch: 0, dueAtMs: NOW_MS, attempts: 0, failures: 0, published: 0 } as const
  return { ...newRun({ id, createdAt: at(0) }), ...more, head: { ...ready, ...head } }
}

const held = (id: string, holder: string) => aRun(id, { state: 'running', holder, epoch: 1 })

export function done(n: number, result: unknown, step = `step ${n}`): RunRecord {
  return { n, atMs: NOW_MS + n, kind: 'done', step, result }
}

const input = (run: string, name: string, more: Partial<RunInput> = {}) => inputOfAna(name, { run, ...more })
const idsOf = (runs: readonly Run[]) => runs.map(({ id }) => id)
const names = (count: number, prefix = 'op') =>
  Array.from({ length: count }, (_, index) => `${prefix}-${String(index).padStart(3, '0')}`)

/** In any alphabet, with what databases and their languages make something of. */
const TEXT = 'Ñandú 🦤 "quoted" \\ back / \u0000 \u2028 {$set: 1} % \ud83e'

/**
 * Tests every promise of the port (runs.ts). Calls `fresh` for each test.
 * @param options.atomicUpdates whether, of several callers that change a head at once, exactly one does
 */
export function describeRuns(name: string, options: { fresh: () => Fresh<Store>; atomicUpdates: boolean }): void {
  describe(`${name} keeps the promises of runs:`, () => {
    let here: Fresh<Store>
    let store: Store
    let runs: Runs

    beforeEach(() => {
      here = options.fresh()
      store = here.open()
      runs = store.runs
    })

    afterEach(async () => {
      await here.dispose()
    })

    async function create(...created: Run[]): Promise<Run[]> {
      await runs.create(created)
      return created
    }

    /** Resolves to the run as the store has it. */
    async function stored(id: string): Promise<Run> {
      const run = await runs.get(id)
      if (!run) throw new Error(`There is no run ${id}.`)
      return run
    }

    const due = (query: Partial<Parameters<Runs['due']>[0]> = {}) =>
      runs.due({ nowMs: NOW_MS, kinds, exceptUsers: [], limit: 100, ...query })

    test('what was stored is read unchanged, also by another process', async () => {
      const whole = aRun(
        'a',
        {
          state: 'stuck',
          epoch: 3,
          step: 'pay',
          forSignal: true,
          attempts: 4,
          failures: 2,
          reason: 'Away.',
          published: 7,
        },
        { redrive: 'r', traceparent: 't', decided: { by: [1.5, null, ''] } },
      )
      const { facts, ...least } = aRun('b')
      await create(whole, least)
      const records: RunRecord[] = [
        { n: 0, atMs: 1, kind: 'started', step: 'pay', final: true },
        { n: 1, atMs: 2, kind: 'waiting', step: 'pause', untilMs: 5, forSignal: false },
        { n: 2, atMs: 3, kind: 'failing', failure: { code: 'cancelled', message: 'It was cancelled.' } },
        { n: 3, atMs: 4, kind: 'undone', step: 'pay' },
        { n: 4, atMs: 5, kind: 'stuck', reason: 'Away.' },
        { n: 5, atMs: 6, kind: 'resumed' },
        { n: 6, atMs: 7, kind: 'ended', outcome: { output: { a: [{}] }, lookup: { key: 'k', order: 'o' } } },
      ]
      for (const record of records) await runs.append([{ run: 'a', record }])
      const inputs = [
        input('a', CANCEL),
        input('a', signalInput('approve'), { by: 'eve', payload: { approved: true } }),
      ]
      await runs.addInputs(inputs)
      await runs.beat('me', 8)
      await runs.pause(sample.type, true)
      await store.close()

      const other = here.open().runs
      expect<unknown>(await other.get('a')).toEqual(whole)
      expect<unknown>(await other.get('b')).toEqual(least)
      expect(await other.get('no such')).toBeUndefined()
      expect<unknown>(await other.history('a')).toEqual(records)
      expect<unknown>(await other.history('b')).toEqual([])
      expect(await other.inputs(['a'])).toEqual(inputs)
      expect(await other.paused()).toEqual([sample.type])
    })

    test('text in any alphabet is kept, and members of any name, nested however deep', async () => {
      const members = { [TEXT]: TEXT, 'a.b': 1, $set: { $inc: 2 } }
      let deep: unknown = 'the bottom'
      for (let level = 0; level < 1500; level++) deep = [deep]
      const run = aRun("it's.$id", { step: TEXT }, { user: 'a"b\\c', input: members, decided: members })
      await create(run)
      const record = done(0, { members, deep }, TEXT)
      const told = input(run.id, signalInput('ñandú/🦤.$'), { user: run.user, by: 'a"b\\c', payload: members })
      expect(await runs.append([{ run: run.id, record }])).toEqual([true])
      await runs.addInputs([told])
      const { head, ...rest } = await stored(run.id)
      expect<unknown>(rest).toEqual({ ...run, head: undefined })
      expect(head.step?.slice(0, 5)).toBe(TEXT.slice(0, 5))
      expect<unknown>(await runs.history(run.id)).toEqual([record])
      expect(await runs.inputs([run.id])).toEqual([told])
      expect(idsOf(await runs.page({ user: run.user }, { limit: 5 }))).toEqual([run.id])
    })

    test('a run is created once, whoever creates it first, and others of the same call are created', async () => {
      const ids = names(12)
      const callers = await Promise.all(
        names(6, 'caller').map(async (user) => {
          const created = await here.open().runs.create(ids.map((id) => aRun(id, {}, { user })))
          return { user, created }
        }),
      )
      for (const id of ids) {
        const [creator, ...others] = callers.filter(({ created }) => created.has(id))
        expect(others).toEqual([])
        expect((await stored(id)).user).toBe(creator?.user ?? 'nobody')
      }
      expect(await runs.create([aRun('op-000', { state: 'ended' }), aRun('new')])).toEqual(new Set(['new']))
      expect((await stored('op-000')).head.state).toBe('ready')
      expect(await runs.create([])).toEqual(new Set())
    })

    test('hundreds of runs, records and inputs are stored at once, among them some that exist', async () => {
      const ids = names(250)
      const known = ['op-000', 'op-099', 'op-100', 'op-249']
      await create(...known.map((id) => aRun(id)))
      await runs.append(known.map((run) => ({ run, record: done(0, 'first') })))
      await runs.addInputs(known.map((run) => input(run, CANCEL, { by: 'first' })))

      const isKnown = (id: string) => known.includes(id)
      expect(await runs.create(ids.map((id) => aRun(id)))).toEqual(new Set(ids.filter((id) => !isKnown(id))))
      const added = await runs.append(ids.map((run) => ({ run, record: done(0, 'second') })))
      expect(added).toEqual(ids.map((id) => !isKnown(id)))
      await runs.addInputs(ids.map((run) => input(run, CANCEL, { by: 'second' })))
      const told = await runs.inputs(ids)
      expect(told).toHaveLength(ids.length)
      expect(
        told
          .filter(({ by }) => by === 'first')
          .map(({ run }) => run)
          .sort(),
      ).toEqual(known)
      for (const id of [...known, 'op-101'])
        expect(await runs.history(id)).toEqual([done(0, isKnown(id) ? 'first' : 'second')])
    })

    test('of 20 callers that append at the same number of a run, one does, and all can tell which', async () => {
      const callers = await Promise.all(
        names(20, 'caller').map(async (caller) => {
          const own = `own-${caller}`
          const answer = await here.open().runs.append([
            { run: 'shared', record: done(0, caller) },
            { run: own, record: done(0, caller) },
          ])
          return { caller, answer }
        }),
      )
      const [winner, ...others] = callers.filter(({ answer }) => answer[0])
      expect(others).toEqual([])
      expect(await runs.history('shared')).toEqual([done(0, winner?.caller)])
      expect(callers.map(({ answer }) => answer[1])).toEqual(callers.map(() => true))
    })

    test('a history is in the order of its numbers, and what is in it stays as it is', async () => {
      for (const n of [0, 10, 2, 1]) expect(await runs.append([{ run: 'a', record: done(n, n) }])).toEqual([true])
      await runs.append([{ run: 'ab', record: done(3, 'of another') }])
      const answers = await runs.append([
        { run: 'b', record: done(0, 'of b') },
        { run: 'a', record: done(2, 'again') },
        { run: 'c', record: done(0, 'of c') },
      ])
      expect(answers).toEqual([true, false, true])
      expect(await runs.history('a')).toEqual([0, 1, 2, 10].map((n) => done(n, n)))
      expect(await runs.append([])).toEqual([])
    })

    test('a result of null is read as null, and no result as none', async () => {
      const results = [null, undefined, '', 0, false, {}, []]
      for (const [n, result] of results.entries()) await runs.append([{ run: 'a', record: done(n, result) }])
      const history = await runs.history('a')
      expect(history.map((record) => record.kind === 'done' && record.result)).toEqual(results)
    })

    test('runs that nobody holds are due, the longest due first: ready, waiting and stuck ones', async () => {
      await create(
        aRun('third', { dueAtMs: NOW_MS }),
        aRun('second', { state: 'waiting', dueAtMs: NOW_MS - 1, epoch: 4 }),
        aRun('first', { state: 'stuck', dueAtMs: NOW_MS - 2, epoch: 1 }),
        aRun('later', { dueAtMs: NOW_MS + 1 }),
        aRun('asleep', { state: 'waiting', dueAtMs: NOW_MS + 1, epoch: 1 }),
        aRun('ended', { state: 'ended', dueAtMs: 0, epoch: 1 }),
        held('held', 'me'),
      )
      expect(idsOf(await due())).toEqual(['first', 'second', 'third'])
      expect(idsOf(await due({ limit: 2 }))).toEqual(['first', 'second'])
      expect<unknown>((await due({ limit: 1 }))[0]).toEqual(await stored('first'))
      expect(idsOf(await due({ nowMs: NOW_MS + 1 }))).toEqual(['first', 'second', 'third', 'asleep', 'later'])
    })

    test('only runs of the kinds that are asked for are due, and none of the excepted users', async () => {
      const others = { type: stepped.type } as const
      await create(
        aRun('a'),
        aRun('b', {}, { version: 2 }),
        aRun('c', {}, others),
        aRun('d', {}, { ...others, version: 2, user: 'bob' }),
        aRun('e', {}, { user: 'bob' }),
      )
      expect(idsOf(await due())).toEqual(['a', 'e'])
      expect(idsOf(await due({ exceptUsers: ['ana', 'nobody'] }))).toEqual(['e'])
      const two = [
        { type: sample.type, version: 2 },
        { type: stepped.type, version: 1 },
      ]
      expect(idsOf(await due({ kinds: two }))).toEqual(['b', 'c'])
      expect(await due({ kinds: [] })).toEqual([])
      expect(await due({ exceptUsers: ['ana', 'bob'] })).toEqual([])
    })

    test('a paused type holds back its runs that no processor has taken, and these alone, until it goes on', async () => {
      await create(
        aRun('new'),
        aRun('begun', { epoch: 1 }),
        aRun('asleep', { state: 'waiting', epoch: 2 }),
        aRun('other', {}, { type: stepped.type }),
      )
      const all = { kinds: [...kinds, { type: stepped.type, version: 1 }] }
      expect(await runs.paused()).toEqual([])
      await runs.pause(sample.type, true)
      await runs.pause(sample.type, true)
      expect(idsOf(await due(all))).toEqual(['asleep', 'begun', 'other'])
      await runs.pause(stepped.type, true)
      expect([...(await runs.paused())].sort()).toEqual([sample.type, stepped.type].sort())
      expect(idsOf(await due(all))).toEqual(['asleep', 'begun'])
      await runs.pause(sample.type, false)
      await runs.pause(sample.type, false)
      expect(await here.open().runs.paused()).toEqual([stepped.type])
      expect(idsOf(await due(all))).toEqual(['asleep', 'begun', 'new'])
    })

    test('the next due time is of a run of the kinds that nobody holds, after the given time', async () => {
      const others = { type: stepped.type, version: 9 } as const
      const both = [...kinds, others]
      expect(await runs.nextDueMs(0, both)).toBeUndefined()
      await create(
        aRun('now', { dueAtMs: NOW_MS }),
        aRun('last', { dueAtMs: NOW_MS + 30 }),
        aRun('next', { state: 'waiting', epoch: 2, dueAtMs: NOW_MS + 20 }, others),
        aRun('unknown', { dueAtMs: NOW_MS + 5 }, { version: 2 }),
        aRun('ended', { state: 'ended', dueAtMs: NOW_MS + 10 }),
        aRun('held', { state: 'running', holder: 'me', epoch: 1, dueAtMs: NOW_MS + 11 }),
      )
      expect(await runs.nextDueMs(NOW_MS - 1, both)).toBe(NOW_MS)
      expect(await runs.nextDueMs(NOW_MS, both)).toBe(NOW_MS + 20)
      expect(await runs.nextDueMs(NOW_MS, kinds)).toBe(NOW_MS + 30)
      expect(await runs.nextDueMs(NOW_MS + 20, both)).toBe(NOW_MS + 30)
      expect(await runs.nextDueMs(NOW_MS + 30, both)).toBeUndefined()
      expect(await runs.nextDueMs(0, [])).toBeUndefined()
    })

    test('of several kinds, begun and new, those that are due longest are due first, at most as many as asked', async () => {
      const ids = names(12)
      const dueLast = ids.toReversed()
      for (const [index, id] of ids.entries())
        await create(
          aRun(id, { epoch: index % 3, dueAtMs: NOW_MS - index }, { type: index % 2 ? sample.type : stepped.type }),
        )
      const both = [...kinds, { type: stepped.type, version: 1 }]
      expect(idsOf(await due({ kinds: both }))).toEqual(dueLast)
      expect(idsOf(await due({ kinds: both, limit: 5 }))).toEqual(dueLast.slice(0, 5))
    })

    test('a run is taken as it was read: not again after another took it', async () => {
      const [run = aRun('')] = await create(
        aRun('a', { epoch: 4, step: 'pay', failures: 2, reason: 'Away.', crashes: 1 }),
      )
      const taken = await runs.take(run, 'me')
      expect<unknown>(taken).toEqual({ ...run, head: { ...run.head, state: 'running', holder: 'me', epoch: 5 } })
      expect<unknown>(await stored('a')).toEqual(taken)
      expect(await here.open().runs.take(run, 'other')).toBeUndefined()
      expect(await runs.take({ ...run, head: { ...run.head, epoch: 5 } }, 'other')).toBeUndefined()
      expect(await runs.take(aRun('no such'), 'me')).toBeUndefined()
      expect(await due()).toEqual([])

      const takenOver = await runs.take(await stored('a'), 'heir')
      expect(takenOver?.head).toMatchObject({ holder: 'heir', epoch: 6 })
      expect((await stored('a')).head.holder).toBe('heir')

      await runs.put(await stored('a'), { ...run.head, epoch: 6 })
      expect(await runs.take(run, 'late')).toBeUndefined()
      expect((await runs.take(await stored('a'), 'me'))?.head.epoch).toBe(7)
      expect(await runs.put(taken ?? run, run.head)).toBe(false)
    })

    if (options.atomicUpdates)
      test('of 20 processors that take a run at once, one has it', async () => {
        const [run = aRun('')] = await create(aRun('a'))
        const takers = await Promise.all(names(20, 'p').map((me) => here.open().runs.take(run, me)))
        const [taken, ...others] = takers.filter((each) => each !== undefined)
        expect(others).toEqual([])
        expect(taken?.head.epoch).toBe(1)
        expect<unknown>(await stored('a')).toEqual(taken)
      })

    test('a head is replaced as a whole, unless another took the run', async () => {
      const [run = aRun('')] = await create(held('a', 'me'), held('b', 'me'))
      const busy: Head = { ...run.head, step: 'pay', forSignal: true, reason: 'Away.', crashes: 1, published: 3 }
      expect(await runs.put(run, busy)).toBe(true)
      expect(await runs.put(run, busy)).toBe(true)
      expect((await stored('a')).head).toEqual(busy)
      expect((await stored('b')).head).toEqual(run.head)

      const other = await runs.take(await stored('a'), 'other')
      expect(await runs.put(run, { ...run.head, published: 9 })).toBe(false)
      expect(await runs.put({ ...run, head: { ...run.head, epoch: 2 } }, run.head)).toBe(false)
      expect((await stored('a')).head.published).toBe(3)

      const idle: Head = { state: 'waiting', epoch: 2, dueAtMs: 5, attempts: 0, failures: 0, published: 4 }
      expect(await runs.put(other ?? run, idle)).toBe(true)
      expect((await stored('a')).head).toEqual(idle)
      expect(idsOf(await due())).toEqual(['a'])
      const unheld = await stored('a')
      expect(await runs.put(unheld, { ...idle, dueAtMs: NOW_MS + 1 })).toBe(true)
      expect(await due()).toEqual([])
      expect(await runs.put(aRun('no such'), idle)).toBe(false)
    })

    test('each holder is known with its beat and its runs', async () => {
      expect(await runs.holders()).toEqual([])
      await runs.beat('without runs', 3)
      await runs.beat('me', 1)
      await runs.beat('me', 2)
      await create(held('a', 'me'), held('b', 'other'), aRun('c'), aRun('d', { state: 'ended' }), held('e', 'me'))
      const holders = async () =>
        (await here.open().runs.holders())
          .map((holder) => ({ ...holder, runs: [...holder.runs].sort() }))
          .sort((one, other) => one.holder.localeCompare(other.holder))
      const other = { holder: 'other', beat: -1, runs: ['b'] }
      await runs.forget('no such')
      expect(await holders()).toEqual([{ holder: 'me', beat: 2, runs: ['a', 'e'] }, other])
      await runs.forget('me')
      await runs.put(await stored('a'), aRun('a').head)
      expect(await holders()).toEqual([{ holder: 'me', beat: -1, runs: ['e'] }, other])
    })

    test('of several inputs of one name a run has the first, whether the run exists or not', async () => {
      const first = input('a', CANCEL, { by: 'first', atMs: 5 })
      await runs.addInputs([first, input('b', CANCEL)])
      await runs.addInputs([
        input('a', CANCEL, { by: 'second', atMs: 1 }),
        input('a', signalInput('approve'), { payload: { approved: false } }),
      ])
      await create(aRun('a'))
      const told = await runs.inputs(['a', 'no such'])
      expect(told).toHaveLength(2)
      expect(told.find(({ name }) => name === CANCEL)).toEqual(first)
      expect(await runs.inputs(['a', 'b'])).toHaveLength(3)
      expect(await runs.inputs([])).toEqual([])

      const racers = names(10, 'racer')
      await Promise.all(racers.map((by) => here.open().runs.addInputs([input('c', CANCEL, { by })])))
      expect(await runs.inputs(['c'])).toHaveLength(1)
    })

    test('of many runs those that exist are found, with their heads', async () => {
      const [a, b] = await create(aRun('a'), aRun('b', { state: 'stuck' }))
      const found = await runs.getMany(['b', 'no such', 'a'])
      expect(found.toSorted((x, y) => (x.id < y.id ? -1 : 1))).toEqual([a, b].flatMap((run) => run ?? []))
      expect(await runs.getMany([])).toEqual([])
    })

    test('inputs are unnoticed, the oldest first, until they are marked', async () => {
      await runs.addInputs([
        input('a', CANCEL, { atMs: 30 }),
        input('b', CANCEL, { atMs: 10 }),
        input('a', signalInput('approve'), { atMs: 20 }),
      ])
      const all = await runs.unnoticed(10)
      expect(all.map(({ run, atMs }) => `${run} ${atMs}`)).toEqual(['b 10', 'a 20', 'a 30'])
      expect(await runs.unnoticed(2)).toEqual(all.slice(0, 2))
      await runs.notice([input('a', CANCEL), input('b', signalInput('approve'))])
      await runs.notice([])
      expect(await here.open().runs.unnoticed(10)).toEqual(all.slice(0, 2))
      await runs.addInputs(all)
      expect(await runs.unnoticed(10)).toEqual(all.slice(0, 2))
      await runs.notice(all)
      expect(await runs.unnoticed(10)).toEqual([])
      expect(await runs.inputs(['a', 'b'])).toHaveLength(3)
    })

    test('what follows an unnoticed input is found, however many were stored at the same time', async () => {
      const all = names(25).map((id, index) => input(id, CANCEL, { atMs: Math.floor(index / 10) }))
      await runs.addInputs(all)
      const found: RunInput[] = []
      for (
        let page = [...(await runs.unnoticed(4))];
        page.length > 0;
        page = [...(await runs.unnoticed(4, page.at(-1)))]
      )
        found.push(...page)
      expect(found).toEqual([...(await runs.unnoticed(100))])
      expect(found).toHaveLength(25)
    })

    test('an input of another user does not take the place of the one of the owner', async () => {
      const [theirs, own] = [input('a', CANCEL, { user: 'mallory' }), input('a', CANCEL)]
      await runs.addInputs([theirs])
      await runs.addInputs([own])
      expect(await runs.inputs(['a'])).toHaveLength(2)
      await runs.notice([theirs])
      expect(await runs.unnoticed(10)).toEqual([own])
    })

    test('pages go from new to old without gap or repetition, by each filter and all of them', async () => {
      const all = names(24).map((id, index) =>
        aRun(
          id,
          { state: index % 3 === 0 ? 'stuck' : 'ended' },
          { user: index % 2 ? 'bob' : 'ana', type: index % 4 ? sample.type : stepped.type, createdAt: at(index) },
        ),
      )
      await create(...all)
      async function readAll(filter: Parameters<Runs['page']>[0]): Promise<string[]> {
        const ids: string[] = []
        while (ids.length <= all.length) {
          const page = idsOf(await runs.page(filter, { limit: 3, before: ids.at(-1) }))
          if (page.length === 0) break
          ids.push(...page)
        }
        return ids
      }
      const filters = [
        {},
        { user: 'ana' },
        { type: sample.type },
        { state: 'stuck' },
        { createdBefore: at(13) },
      ] as const
      const both = { ...filters[1], ...filters[3], user: undefined }
      for (const filter of [...filters, Object.assign({}, ...filters.slice(2)), both, Object.assign({}, ...filters)]) {
        const { user = '', type = '', state = '', createdBefore = '~' } = filter
        const wanted = all.filter(
          (run) =>
            run.user.endsWith(user) &&
            run.type.endsWith(type) &&
            run.head.state.endsWith(state) &&
            run.createdAt < createdBefore,
        )
        expect(wanted.length).toBeGreaterThan(0)
        expect(await readAll(filter)).toEqual(idsOf(wanted).reverse())
      }
      expect(await readAll({ user: 'nobody' })).toEqual([])
    })

    test('old runs that have ended go, with their records and inputs; nothing else does', async () => {
      const old = { createdAt: at(0) }
      await create(
        ...['a', 'b', 'c'].map((id) => aRun(id, { state: 'ended' }, old)),
        aRun('recent', { state: 'ended' }, { createdAt: at(2) }),
        aRun('stuck', { state: 'stuck' }, old),
        aRun('asleep', { state: 'waiting' }, old),
        aRun('new', {}, old),
      )
      await runs.put((await create(held('held', 'me')))[0] ?? aRun(''), held('held', 'me').head)
      const ids = ['a', 'b', 'c', 'recent', 'stuck', 'asleep', 'new', 'held']
      await runs.append(ids.map((run) => ({ run, record: done(0, 'x') })))
      await runs.append(ids.map((run) => ({ run, record: done(1, 'y') })))
      await runs.addInputs(ids.map((run) => input(run, CANCEL, { atMs: Date.parse(at(0)) })))
      await runs.notice([input('a', CANCEL), input('stuck', CANCEL)])

      expect(await runs.deleteBefore(at(1), 2)).toBe(2)
      expect(await runs.deleteBefore(at(1), 2)).toBe(1)
      expect(await runs.deleteBefore(at(1), 2)).toBe(0)
      for (const id of ['a', 'b', 'c']) {
        expect(await runs.get(id)).toBeUndefined()
        expect(await runs.history(id)).toEqual([])
        expect(await runs.inputs([id])).toEqual([])
      }
      for (const id of ids.slice(3)) {
        expect((await stored(id)).id).toBe(id)
        expect(await runs.history(id)).toHaveLength(2)
        expect(await runs.inputs([id])).toHaveLength(1)
      }
    })

    test('old inputs of operations that have no run go, at most as many as asked', async () => {
      const early = { atMs: Date.parse(at(0)) }
      await create(aRun('stuck', { state: 'stuck' }), aRun('ended', { state: 'ended' }))
      await runs.addInputs([
        input('stuck', CANCEL, early),
        ...names(5).map((run) => input(run, CANCEL, early)),
        input('recent', CANCEL, { atMs: Date.parse(at(1)) }),
      ])
      await runs.notice([input('op-000', CANCEL)])
      // The run, and two inputs.
      expect(await runs.deleteBefore(at(1), 3)).toBe(3)
      expect(await runs.get('ended')).toBeUndefined()
      expect(await runs.inputs(names(5))).toHaveLength(3)
      await runs.deleteBefore(at(1), 1)
      expect(await runs.inputs(names(5))).toHaveLength(2)
      expect(await runs.deleteBefore(at(1), 3)).toBe(2)
      expect((await runs.inputs(['stuck', 'recent', ...names(5)])).map(({ run }) => run).sort()).toEqual([
        'recent',
        'stuck',
      ])
      expect(await runs.deleteBefore(at(1), 3)).toBe(0)
    })
  })
}
