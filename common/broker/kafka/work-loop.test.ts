import { expect, test } from 'bun:test'
import { createWorkLoop } from './work-loop.ts'

test('work that is added right after the last step is done too', async () => {
  const pending = ['a']
  const done: string[] = []
  const loop = createWorkLoop(
    () => pending.length > 0,
    async () => void done.push(pending.shift() ?? ''),
  )
  await loop.run()
  pending.push('b')
  await loop.run()
  const third = loop.run().then(() => {
    pending.push('c')
    return loop.run()
  })
  await third
  expect(done).toEqual(['a', 'b', 'c'])
  expect(loop.isRunning()).toBe(false)
})

test('one step runs at a time, and takes along what is added in the same turn', async () => {
  let pending = 0
  let running = 0
  const steps: number[] = []
  const loop = createWorkLoop(
    () => pending > 0,
    async () => {
      expect(++running).toBe(1)
      steps.push(pending)
      pending = 0
      await Bun.sleep(1)
      running--
    },
  )
  pending++
  void loop.run()
  pending++
  const run = loop.run()
  await Promise.resolve()
  await Promise.resolve()
  pending++
  void loop.run()
  await run
  expect(steps).toEqual([2, 1])
})
