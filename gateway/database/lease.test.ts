import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { systemDeps } from '@posta/common/service/deps.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { eq, sql } from 'drizzle-orm'
import { openTemporary } from '../testing/database.ts'
import type { Writer } from './commit.ts'
import { type Held, holdLease } from './lease.ts'
import { leases, outbox } from './schema.ts'

const silent = { info() {}, warn() {} }
const note = (held: Held | undefined) => sql`INSERT INTO ${outbox} (operation_id) SELECT 'x' WHERE ${held?.stillHeld}`

async function start() {
  const opened = await openTemporary()
  const { database, writer } = opened
  const row = async () => (await database.select().from(leases).where(eq(leases.name, 'relay'))).at(0)
  return {
    ...opened,
    row,
    /** A process that tries for the lease, with quick beats and a clock of its own, which only `pass` moves. */
    contend(through: Writer = writer) {
      let nowMs = 0
      let looks = 0
      const changes: object[] = []
      const monotonicMs = () => {
        looks += 1
        return nowMs
      }
      const lease = holdLease({
        name: 'relay',
        database,
        writer: through,
        deps: { newId: systemDeps.newId, monotonicMs },
        log: { info: (facts: object, text = '') => void changes.push({ ...facts, text }), warn() {} },
        beatMs: 2,
      })
      return {
        ...lease,
        changes,
        pass(ms: number) {
          nowMs += ms
        },
        /** Resolves when it has looked at its clock several times more, which it does each time it has read the row. */
        async look() {
          const from = looks
          await eventually(() => looks > from + 3)
        },
      }
    },
    /** The row of a process that has died. */
    async leaveDead(epoch: number) {
      await writer.write([database.insert(leases).values({ name: 'relay', owner: 'the dead', epoch, beat: 3 })])
    },
    /** Resolves when the lease's holder has beaten several times more. */
    async beats() {
      const from = (await row())?.beat ?? 0
      await eventually(async () => ((await row())?.beat ?? 0) > from + 3)
    },
  }
}

test('a lease that nobody ever held is taken at once, and its beats keep it', async () => {
  const { contend, beats, row, close } = await start()
  const lease = contend()
  await eventually(() => lease.current() !== undefined)
  await beats()
  expect(lease.current()?.epoch).toBe(1)
  expect(await row()).toMatchObject({ epoch: 1 })
  expect(lease.changes).toEqual([{ lease: 'relay', epoch: 1, text: 'lease taken' }])
  await lease.close()
  await close()
})

test('nobody takes the lease of a holder that beats, however long it holds it', async () => {
  const { contend, beats, close } = await start()
  const holder = contend()
  await eventually(() => holder.current() !== undefined)
  const other = contend()
  for (let round = 0; round < 5; round++) {
    await beats()
    await other.look()
    other.pass(3900)
  }
  expect(other.changes).toEqual([])
  expect(holder.changes).toEqual([{ lease: 'relay', epoch: 1, text: 'lease taken' }])
  await other.close()
  await holder.close()
  await close()
})

test('a lease is taken after 4 s without a beat on the own clock, with the next epoch, by one process alone', async () => {
  const { contend, leaveDead, row, close } = await start()
  await leaveDead(7)
  const contenders = [contend(), contend(), contend()]
  const holders = () => contenders.filter((each) => each.current())
  await Promise.all(contenders.map((each) => each.look()))
  for (const each of contenders) each.pass(3999)
  await Promise.all(contenders.map((each) => each.look()))
  expect(holders()).toEqual([])
  for (const each of contenders) each.pass(1)
  await eventually(() => holders().length > 0)
  await Promise.all(contenders.map((each) => each.look()))
  expect(holders()).toHaveLength(1)
  expect(await row()).toMatchObject({ epoch: 8 })
  for (const each of contenders) await each.close()
  await close()
})

test('one new beat starts the 4 s anew', async () => {
  const { contend, writer, leaveDead, close } = await start()
  await leaveDead(7)
  const lease = contend()
  await lease.look()
  lease.pass(3999)
  await writer.write([sql`UPDATE ${leases} SET beat = beat + 1`])
  await lease.look()
  lease.pass(3999)
  await lease.look()
  expect(lease.changes).toEqual([])
  lease.pass(1)
  await eventually(() => lease.current()?.epoch === 8)
  await lease.close()
  await close()
})

test.each([
  ['its holder beats after all', sql`UPDATE ${leases} SET beat = beat + 1`],
  ['another process takes it', sql`UPDATE ${leases} SET owner = 'another', epoch = epoch + 1`],
])('a lease is not taken if, between the look at it and the write, %s', async (_, change) => {
  const { contend, writer, row, leaveDead, close } = await start()
  await leaveDead(7)
  const gate = Promise.withResolvers<void>()
  let attempts = 0
  const lease = contend({
    ...writer,
    async write(statements) {
      attempts += 1
      await gate.promise
      return writer.write(statements)
    },
  })
  await lease.look()
  lease.pass(4000)
  await eventually(() => attempts > 0)
  await writer.write([change])
  const changed = await row()
  gate.resolve()
  await lease.look()
  expect(lease.changes).toEqual([])
  expect(await row()).toEqual(changed)
  await lease.close()
  await close()
})

test('each process counts the 4 s by its own clock', async () => {
  const { contend, leaveDead, close } = await start()
  await leaveDead(7)
  const [slow, quick] = [contend(), contend()]
  await Promise.all([slow.look(), quick.look()])
  quick.pass(4000)
  await eventually(() => quick.current() !== undefined)
  await slow.look()
  expect(slow.changes).toEqual([])
  await slow.close()
  await quick.close()
  await close()
})

test('a lease that is given up is taken at once', async () => {
  const { contend, row, close } = await start()
  const first = contend()
  await eventually(() => first.current() !== undefined)
  const second = contend()
  await first.close()
  expect(first.current()).toBeUndefined()
  expect(first.changes.at(-1)).toEqual({ lease: 'relay', epoch: 1, text: 'lease given up' })
  await eventually(() => second.current() !== undefined)
  expect(second.current()?.epoch).toBe(2)
  await second.close()
  expect(await row()).toMatchObject({ owner: null, epoch: 2 })
  await close()
})

test('a holder that cannot renew for 4 s no longer counts itself as the holder', async () => {
  const { contend, writer, beats, close } = await start()
  let isBroken = false
  const lease = contend({
    ...writer,
    write: (statements) => (isBroken ? Promise.reject(new Error('out of order')) : writer.write(statements)),
  })
  await eventually(() => lease.current() !== undefined)
  isBroken = true
  lease.pass(3999)
  expect(lease.current()?.epoch).toBe(1)
  lease.pass(1)
  expect(lease.current()).toBeUndefined()
  await eventually(() => lease.changes.length === 2)
  isBroken = false
  await lease.look()
  lease.pass(4000)
  await eventually(() => lease.current() !== undefined)
  expect(lease.changes).toEqual([
    { lease: 'relay', epoch: 1, text: 'lease taken' },
    { lease: 'relay', epoch: 1, text: 'lease lost' },
    { lease: 'relay', epoch: 2, text: 'lease taken' },
  ])
  await beats()
  await lease.close()
  await close()
})

test('the writes of a holder that was frozen no longer apply once another has the lease, and it learns so when it wakes', async () => {
  const { contend, writer, database, close } = await start()
  const thaw = Promise.withResolvers<void>()
  let isFrozen = false
  let waiting = 0
  const holder = contend({
    ...writer,
    async write(statements) {
      if (isFrozen) {
        waiting += 1
        await thaw.promise
      }
      return writer.write(statements)
    },
  })
  await eventually(() => holder.current() !== undefined)
  isFrozen = true
  await eventually(() => waiting > 0)
  const other = contend()
  await other.look()
  other.pass(4000)
  await eventually(() => other.current()?.epoch === 2)

  // Its own clock stood still.
  expect(holder.current()?.epoch).toBe(1)
  await writer.write([note(holder.current())])
  expect(await database.$count(outbox)).toBe(0)
  thaw.resolve()
  await eventually(() => holder.current() === undefined)
  expect(holder.changes).toEqual([
    { lease: 'relay', epoch: 1, text: 'lease taken' },
    { lease: 'relay', epoch: 1, text: 'lease lost' },
  ])
  expect(other.current()?.epoch).toBe(2)
  await holder.close()
  await other.close()
  await close()
})

test('a write under a lease that was given up does nothing', async () => {
  const { contend, writer, database, close } = await start()
  const lease = contend()
  await eventually(() => lease.current() !== undefined)
  const held = lease.current()
  await writer.write([note(held)])
  expect(await database.$count(outbox)).toBe(1)
  await lease.close()
  await writer.write([note(held)])
  expect(await database.$count(outbox)).toBe(1)
  const other = contend()
  await eventually(() => other.current() !== undefined)
  await writer.write([note(held)])
  expect(await database.$count(outbox)).toBe(1)
  await writer.write([note(other.current())])
  expect(await database.$count(outbox)).toBe(2)
  await other.close()
  await close()
})

test('another process takes the lease of one that was killed', async () => {
  const { url, database, writer, row, close } = await start()
  const program = `
    const { openDatabase } = await import(${JSON.stringify(join(import.meta.dir, 'open.ts'))})
    const { holdLease } = await import(${JSON.stringify(join(import.meta.dir, 'lease.ts'))})
    const opened = await openDatabase({ url: ${JSON.stringify(url)} })
    const deps = { monotonicMs: () => performance.now(), newId: () => 'the killed one' }
    holdLease({ name: 'relay', ...opened, deps, log: { info() {}, warn() {} }, beatMs: 20, takeoverMs: 400 })`
  await using holder = Bun.spawn([process.execPath, '-e', program], { stdout: 'inherit', stderr: 'inherit' })
  await eventually(async () => (await row())?.owner === 'the killed one')
  const lease = holdLease({
    name: 'relay',
    database,
    writer,
    deps: systemDeps,
    log: silent,
    beatMs: 20,
    takeoverMs: 400,
  })
  await eventually(async () => ((await row())?.beat ?? 0) > 3)
  expect(lease.current()).toBeUndefined()
  holder.kill('SIGKILL')
  await holder.exited
  await eventually(() => lease.current() !== undefined)
  expect(lease.current()?.epoch).toBe(2)
  await lease.close()
  await close()
})
