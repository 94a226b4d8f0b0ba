import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { groups, topics } from '../../messages/topics.ts'
import { createLog } from '../../service/log.ts'
import { temporaryFolder } from '../../testing/temporary-folder.ts'
import { openFile } from './file.ts'
import { openLease } from './lease.ts'

/** The row of one group's topic, and members that contend for it. Only `passes` moves the clock. */
function scene() {
  const folder = temporaryFolder()
  const file = openFile(join(folder.path, 'broker.sqlite'))
  const [group, topic] = [groups.processor, topics.requests]
  file.db.run('INSERT INTO consumer ("group", topic, next, epoch, beat) VALUES (?, ?, 7, 0, 0)', [group, topic])
  let nowMs = 0
  const warnings: string[] = []
  const log = createLog('test', 'silent')
  log.warn = (text: string) => void warnings.push(text)
  const deps = { now: () => 0, monotonicMs: () => nowMs }
  return {
    file,
    warnings,
    member: () => openLease({ file, group, topic, deps, log }),
    stranger: () => openLease({ file, group: groups.monitor, topic, deps, log }),
    row: () => file.db.query('SELECT next, epoch, beat, owner IS NULL AS free FROM consumer').get(),
    /** This many looks of a member that stands by, 200 ms apart. Resolves to the first lease that it gets. */
    async passes(looks: number, lease: ReturnType<typeof openLease>) {
      for (let look = 0; look < looks; look++) {
        nowMs += 200
        const taken = await lease.take()
        if (taken) return taken
      }
      return undefined
    },
    [Symbol.dispose]() {
      file.release()
      folder.remove()
    },
  }
}

test('a lease that is free is taken at once, with the next epoch and the committed offset, and by one member alone', async () => {
  using here = scene()
  const [one, other] = [here.member(), here.member()]
  expect(await Promise.all([one.take(), other.take()])).toEqual([{ epoch: 1, committed: 7 }, undefined])
  expect(one.isHeld(1)).toBe(true)
  expect(one.isHeld(0)).toBe(false)
  expect(here.row()).toEqual({ next: 7, epoch: 1, beat: 1, free: 0 })
  expect(here.warnings).toEqual([])
})

test('a holder that raises its beat keeps its lease; one that is silent for 4 s loses it, and its writes change nothing', async () => {
  using here = scene()
  const [holder, other] = [here.member(), here.member()]
  await holder.take()
  for (let round = 0; round < 3; round++) {
    expect(await here.passes(19, other)).toBeUndefined()
    expect(holder.renew(1, 8)).toBe(true)
  }
  // The first look sees the new beat. It is 4 s later with the twentieth after that.
  expect(await here.passes(20, other)).toBeUndefined()
  expect(await here.passes(1, other)).toEqual({ epoch: 2, committed: 8 })
  expect(here.warnings).toEqual(['took over from a member that fell silent'])
  const row = here.row()
  expect(holder.isHeld(1)).toBe(false)
  expect(holder.renew(1, 99)).toBe(false)
  holder.release(1, 99)
  expect(here.row()).toEqual(row)
})

test('a member that is about to take over finds that the holder has raised its beat, and does not', async () => {
  using here = scene()
  const [holder, other] = [here.member(), here.member()]
  await holder.take()
  await here.passes(20, other)
  // The look at the row comes first; the beat comes before the write.
  const renewed = here.file.write(() => holder.renew(1, 7))
  expect(await here.passes(1, other)).toBeUndefined()
  expect(await renewed).toBe(true)
  expect(here.warnings).toEqual([])
})

test('the committed offset moves forward with a beat and with a release, and never back', async () => {
  using here = scene()
  const [holder, other] = [here.member(), here.member()]
  await holder.take()
  holder.renew(1, 9)
  expect(here.row()).toMatchObject({ next: 9, beat: 2 })
  holder.renew(1, 8)
  expect(here.row()).toMatchObject({ next: 9, beat: 3 })
  holder.release(1, 8)
  expect(here.row()).toEqual({ next: 9, epoch: 2, beat: 3, free: 1 })
  expect(holder.isHeld(1)).toBe(false)
  expect(await other.take()).toEqual({ epoch: 3, committed: 9 })
  other.release(3, 10)
  expect(here.row()).toMatchObject({ next: 10 })
})

test('a lease that was set free wakes the members that wait for it, once that is synced', async () => {
  using here = scene()
  const holder = here.member()
  await holder.take()
  let woken = 0
  const stop = here.file.listen(topics.requests, () => woken++)
  await here.file.write(() => holder.renew(1, 7))
  expect(woken).toBe(0)
  await here.file.write(() => holder.release(1, 7))
  expect(woken).toBe(1)
  stop()
  await here.file.write(() => holder.release(1, 7))
  expect(woken).toBe(1)
})

test('a group that never subscribed to the topic has no lease', async () => {
  using here = scene()
  const stranger = here.stranger()
  expect(await stranger.take()).toBeUndefined()
  expect(stranger.isHeld(0)).toBe(false)
  expect(stranger.renew(0, 1)).toBe(false)
})
