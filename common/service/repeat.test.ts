import { expect, test } from 'bun:test'
import { deleteAll, repeat } from './repeat.ts'

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1)
}

test('tasks run again and again, in their order; one that fails is logged and keeps no other from its turn', async () => {
  const steps: string[] = []
  const warnings: object[] = []
  const reason = new Error('The store is away.')
  const component = repeat({
    name: 'maintenance',
    everyMs: 1,
    tasks: [
      { name: 'fails', run: () => Promise.reject(reason) },
      { name: 'works', run: async () => void steps.push('works') },
    ],
    log: { warn: (facts: object) => void warnings.push(facts) },
  })
  expect(steps).toEqual([])
  await component.start?.()
  await until(() => steps.length > 2)
  await component.close?.(1000)
  expect(warnings).toHaveLength(steps.length)
  expect(warnings[0]).toEqual({ err: reason, component: 'maintenance', task: 'fails' })
})

test('closing waits for the task that runs, which is told, and starts no other', async () => {
  let ended = false
  const component = repeat({
    name: 'maintenance',
    everyMs: 1,
    tasks: [
      {
        name: 'runs',
        async run(signal) {
          await new Promise<void>((resolve) => signal.addEventListener('abort', () => setTimeout(resolve, 5)))
          ended = true
        },
      },
      { name: 'next', run: () => Promise.reject(new Error('It was started.')) },
    ],
    log: {
      warn() {
        throw new Error('Nothing should fail.')
      },
    },
  })
  await component.start?.()
  await component.close?.(1000)
  expect(ended).toBe(true)
})

test('what is deleted is deleted in portions, until there is none left or someone says stop', async () => {
  let left = 1200
  const asked: number[] = []
  const deleteSome = async (atOnce: number) => {
    asked.push(atOnce)
    const deleted = Math.min(left, atOnce)
    left -= deleted
    return deleted
  }
  expect(await deleteAll(deleteSome, new AbortController().signal)).toBe(1200)
  expect(asked).toEqual([500, 500, 500])

  left = 1200
  const stopping = new AbortController()
  const stopAfterOne = (atOnce: number) => {
    stopping.abort()
    return deleteSome(atOnce)
  }
  expect(await deleteAll(stopAfterOne, stopping.signal)).toBe(500)
})
