import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { systemDeps } from '@posta/common/service/deps.ts'
import { eq, sql } from 'drizzle-orm'
import { eventually, openTemporary } from '../testing/database.ts'
import type { Writer } from './commit.ts'
import { type Held, holdLease } from './lease.ts'
import { leases, outbox } from './schema.ts'

const silent = { info() {}, warn() {} }

async function start() {
  const opened = await openTemporary()
  const { database, writer } = opened
  const row = async () => (await database.select().from(leases).where(eq(leases.name, 'relay'))).at(0)
  return {
    ...opened,
    row,
    /** A contender with a clock of its own, which moves only when told, and quick beats. */
    contend(through: Writer = writer) {
      let nowMs = 0
      let looks = 0
      const changes: (number | undefined)[] = []
      const monotonicMs = () => {
        looks += 1
        return nowMs
      }
      const lease = holdLease({
        name: 'relay',
        database,
        writer: through,
        deps: { newId: systemDeps.newId, monotonicMs },
        log: silent,
        onChange: (held) => changes.push(held?.epoch),
        beatMs: 2,
      })
      return {
        ...lease,
        changes,
        pass(ms: number) {
          nowMs += ms
        },
        /** Resolves when it has looked at its clock several times more, as it does whenever it has looked at the row. */
        async look() {
          const from = looks
          await eventually(() => looks > from + 3)
        },
      }
    },
    /** The row of a process that is no more. */
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

test('a lease that nobody ever held is taken at once, and is kept by beating', async () => {
  const { contend, beats, row, close } = await start()
  const lease = contend()
  await eventually(() => lease.current() !== undefined)
  await beats()
  expect(lease.current()?.epoch).toBe(1)
  expect(await row()).toMatchObject({ epoch: 1 })
  expect(lease.changes).toEqual([1])
  await lease.close()
  await close()
})

test('nobody takes the lease of one who beats, however long it lasts', async () => {
  const { contend, beats, close } = await start()
  const holder = contend()
  await eventually(() => holder.current() !== undefined)
  const other = contend()
  for (let round = 0; round < 5; round++) {
    other.pass(3900)
    await beats()
  }
  expect(other.changes).toEqual([])
  expect(holder.changes).toEqual([1])
  await other.close()
  await holder.close()
  await close()
})

test('a lease without a new beat for 4 s of the own clock is taken, with the next epoch, by one alone', async () => {
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

test('a lease that is given up is taken at once', async () => {
  const { contend, row, close } = await start()
  const first = contend()
  await eventually(() => first.current() !== undefined)
  const second = contend()
  await first.close()
  expect(first.current()).toBeUndefined()
  await eventually(() => second.current() !== undefined)
  expect(second.current()?.epoch).toBe(2)
  await second.close()
  expect(await row()).toMatchObject({ owner: null, epoch: 2 })
  await close()
})

test('who cannot renew for 4 s no longer holds the lease, for all it knows', async () => {
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
  expect(lease.changes).toEqual([1, undefined, 2])
  await beats()
  await lease.close()
  await close()
})

test('what is written under a lease that another has taken does nothing', async () => {
  const { contend, writer, database, close } = await start()
  const lease = contend()
  await eventually(() => lease.current() !== undefined)
  const note = (held: Held | undefined) => sql`INSERT INTO ${outbox} (operation_id) SELECT 'x' WHERE ${held?.stillHeld}`
  const held = lease.current()
  await writer.write([note(held)])
  expect(await database.$count(outbox)).toBe(1)
  await lease.close()
  const other = contend()
  await eventually(() => other.current() !== undefined)
  await writer.write([note(held)])
  expect(await database.$count(outbox)).toBe(1)
  await writer.write([note(other.current())])
  expect(await database.$count(outbox)).toBe(2)
  await other.close()
  await close()
})

test('the lease of a process that is killed is taken by another one', async () => {
  const { url, database, writer, row, close } = await start()
  const program = `
    const { openDatabase } = await import(${JSON.stringify(join(import.meta.dir, 'open.ts'))})
    const { holdLease } = await import(${JSON.stringify(join(import.meta.dir, 'lease.ts'))})
    const opened = await openDatabase({ url: ${JSON.stringify(url)} })
    const deps = { monotonicMs: () => performance.now(), newId: () => 'the killed one' }
    holdLease({ name: 'relay', ...opened, deps, log: { info() {}, warn() {} }, beatMs: 20, takeoverMs: 400 })`
  const holder = Bun.spawn([process.execPath, '-e', program], { stdout: 'inherit', stderr: 'inherit' })
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
