import { Database } from 'bun:sqlite'
import { afterEach, expect, test } from 'bun:test'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { queries } from './embedded.ts'
import { conversion, describeResults } from './results.suite.ts'

const folders: ReturnType<typeof temporaryFolder>[] = []
const opened: Store[] = []

function temporary(): string {
  const folder = temporaryFolder()
  folders.push(folder)
  return folder.path
}

function open(path: string): Store {
  const store = openEmbedded(path)
  opened.push(store)
  return store
}

afterEach(async () => {
  for (const store of opened.splice(0)) await store.close()
  for (const folder of folders.splice(0)) folder.remove()
})

describeResults('the embedded store', () => freshFile(openEmbedded))

test('every query uses an index: none reads the whole table or sorts', async () => {
  const path = join(temporary(), 'results.db')
  await open(path).ping()
  using database = new Database(path)
  for (const [name, sql] of Object.entries(queries)) {
    const values = Array.from(new Set(sql.match(/\?\d/g)), () => '[]')
    const plan = database.query<{ detail: string }, string[]>(`EXPLAIN QUERY PLAN ${sql}`).all(...values)
    const steps = plan.map(({ detail }) => detail)
    expect(steps.join('\n'), name).toMatch(/SEARCH (?:results|existing) USING/)
    expect(steps.join('\n'), name).not.toMatch(/SCAN (?:results|existing)|TEMP B-TREE/)
  }
})

test('while another process holds the lock a write waits without blocking this process, and then succeeds', async () => {
  const path = join(temporary(), 'results.db')
  const { results, ping } = open(path)
  await ping()
  using other = new Database(path)
  other.run('BEGIN IMMEDIATE')
  let settled = false
  const appended = results.append([conversion('a')]).finally(() => {
    settled = true
  })
  // Each turn shows that this process is not blocked. Three turns are longer than the wait inside SQLite.
  for (let turn = 0; turn < 3; turn++) {
    await Bun.sleep(60)
    expect(settled).toBe(false)
  }
  other.run('COMMIT')
  expect(await appended).toBe(1)
})

test('a store that cannot be opened rejects, and works once it can', async () => {
  const folder = temporary()
  writeFileSync(join(folder, 'in-the-way'), '')
  const { results, ping } = open(join(folder, 'in-the-way', 'results.db'))
  await expect(results.append([conversion('a')])).rejects.toThrow()
  await expect(ping()).rejects.toThrow()
  rmSync(join(folder, 'in-the-way'))
  expect(await results.append([conversion('a')])).toBe(1)
})

test('several processes can open a new file at once, and store each result once', async () => {
  const path = join(temporary(), 'new', 'results.db')
  const ids = Array.from({ length: 50 }, (_, index) => `op-${index}`)
  const script = `
    const { openEmbedded } = await import(${JSON.stringify(join(import.meta.dir, '../store/embedded.ts'))})
    const { results, close } = openEmbedded(${JSON.stringify(path)})
    let count = 0
    for (const one of ${JSON.stringify(ids.map((id) => conversion(id)))}) count += await results.append([one])
    await close()
    console.log(count)`
  const processes = [1, 2, 3].map(() => Bun.spawn([process.execPath, '-e', script], { stderr: 'inherit' }))
  const counts = await Promise.all(processes.map(async ({ stdout }) => Number(await new Response(stdout).text())))
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(ids.length)
  expect((await open(path).results.find(ids)).size).toBe(ids.length)
})
