import { Database } from 'bun:sqlite'
import { afterEach, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { verify } from '../audit/chain.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import { openEmbedded, statements } from './embedded.ts'
import { describeStore } from './events.suite.ts'
import type { Store } from './events.ts'
import { toEvent } from './record.ts'

const folders: string[] = []
const opened: Store[] = []

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'posta-events-'))
  folders.push(folder)
  return folder
}

function open(path: string): Store {
  const store = openEmbedded(path)
  opened.push(store)
  return store
}

const event = (id: string) => toEvent(deliver(loggedIn(id)), NOON_MS)

afterEach(async () => {
  for (const store of opened.splice(0)) await store.close()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

describeStore('the embedded store', () => freshFile(openEmbedded))

/** Every combination of filters that a list can be asked with. */
function combinations<Name extends string>(names: readonly Name[]): { [name in Name]?: string }[] {
  const [name, ...rest] = names
  if (name === undefined) return [{}]
  const without = combinations(rest)
  return [...without, ...without.map((each) => ({ ...each, [name]: 'x' }))] as { [name in Name]?: string }[]
}

test('every query goes by an index: none reads the whole table or sorts', async () => {
  const path = join(temporary(), 'monitor.db')
  await open(path).ping()
  using database = new Database(path)
  const { list, insert, ping, ...fixed } = statements
  const queries = [
    ...Object.values(fixed),
    ...combinations(['type', 'user', 'operation', 'fromMs']).map((filter) =>
      list({ ...filter, fromMs: filter.fromMs === undefined ? undefined : 0 }),
    ),
  ]
  expect(queries).toHaveLength(8 + 16)
  for (const sql of queries) {
    const plan = database.query<{ detail: string }, []>(`EXPLAIN QUERY PLAN ${sql}`).all()
    const steps = plan.map(({ detail }) => detail).join('\n')
    expect(steps, sql).toMatch(/SEARCH events USING (?:COVERING )?INDEX/)
    expect(steps, sql).not.toMatch(/SCAN events|TEMP B-TREE/)
  }
})

test('counts and durations are answered by an index alone', async () => {
  const path = join(temporary(), 'monitor.db')
  await open(path).ping()
  using database = new Database(path)
  for (const sql of [statements.countByMinute, statements.durations]) {
    const plan = database.query<{ detail: string }, []>(`EXPLAIN QUERY PLAN ${sql}`).all()
    expect(plan.map(({ detail }) => detail).join('\n')).toMatch(/SEARCH events USING COVERING INDEX events_type/)
  }
})

test('an append that another process holds up waits without stopping this one, and goes in', async () => {
  const path = join(temporary(), 'monitor.db')
  const store = open(path)
  await store.ping()
  using other = new Database(path)
  other.run('BEGIN IMMEDIATE')
  let settled = false
  const appended = createAppend(store.events)([event('a')]).finally(() => {
    settled = true
  })
  // Each turn of this loop shows that the process goes on; three of them outlast the wait inside SQLite.
  for (let turn = 0; turn < 3; turn++) {
    await Bun.sleep(60)
    expect(settled).toBe(false)
  }
  other.run('COMMIT')
  await appended
  expect(await store.events.get('a')).toBeDefined()
})

test('a store that cannot be opened rejects, and works once it can', async () => {
  const folder = temporary()
  writeFileSync(join(folder, 'in-the-way'), '')
  const store = open(join(folder, 'in-the-way', 'monitor.db'))
  const append = createAppend(store.events)
  await expect(append([event('a')])).rejects.toThrow()
  await expect(store.ping()).rejects.toThrow()
  rmSync(join(folder, 'in-the-way'))
  await append([event('a')])
  expect(await store.events.get('a')).toBeDefined()
})

test('processes that open a new file at once all work, and chain each event once', async () => {
  const path = join(temporary(), 'new', 'monitor.db')
  const script = `
    const { openEmbedded } = await import(${JSON.stringify(join(import.meta.dir, 'embedded.ts'))})
    const { createAppend } = await import(${JSON.stringify(join(import.meta.dir, 'append.ts'))})
    const store = openEmbedded(${JSON.stringify(path)})
    const append = createAppend(store.events)
    for (const event of ${JSON.stringify(Array.from({ length: 50 }, (_, n) => event(`e-${n}`)))}) await append([event])
    await store.close()`
  const processes = [1, 2, 3].map(() => Bun.spawn([process.execPath, '-e', script], { stderr: 'inherit' }))
  expect(await Promise.all(processes.map(({ exited }) => exited))).toEqual([0, 0, 0])
  const { chains } = await verify(open(path).events.inChainOrder())
  expect(chains).toMatchObject([{ events: 50, head: { seq: 50 } }])
  expect(chains[0]).not.toHaveProperty('firstBad')
})
