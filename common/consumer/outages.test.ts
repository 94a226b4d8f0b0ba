import { expect, spyOn, test } from 'bun:test'
import { createLog } from '../service/log.ts'
import { createOutages } from './outages.ts'

const log = createLog('test', 'silent')

test('work is repeated until it does not throw, and an outage is ongoing meanwhile', async () => {
  const outages = createOutages({ log, firstPauseMs: 1 })
  const seen: boolean[] = []
  const work = async () => {
    seen.push(outages.ongoing())
    if (seen.length < 3) throw new Error('The store is down.')
    return 'stored'
  }
  expect(await outages.waitOut(work, new AbortController().signal)).toBe('stored')
  expect(seen).toEqual([false, true, true])
  expect(outages.ongoing()).toBe(false)
})

test('once the partition is lost nobody waits any longer', async () => {
  const outages = createOutages({ log, firstPauseMs: 60_000 })
  const lost = new AbortController()
  const waiting = outages.waitOut(() => Promise.reject(new Error('The store is down.')), lost.signal)
  await Promise.resolve()
  lost.abort(new Error('The partition is lost.'))
  await expect(waiting).rejects.toThrow('The partition is lost.')
  expect(outages.ongoing()).toBe(false)
})

test('the pauses begin with the first and double', async () => {
  const own = createLog('test', 'silent')
  using warned = spyOn(own, 'warn')
  let failures = 4
  const work = async () => {
    if (failures-- > 0) throw new Error('The store is down.')
  }
  await createOutages({ log: own, firstPauseMs: 1 }).waitOut(work, new AbortController().signal)
  expect(warned.mock.calls).toMatchObject([1, 2, 4, 8].map((pauseMs) => [{ pauseMs }, expect.any(String)]))
})
