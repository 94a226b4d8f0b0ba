import { expect, test } from 'bun:test'
import { eventually } from '../testing/eventually.ts'
import { deleteAll, repeat } from './repeat.ts'

test('tasks run again and again; one that fails does not stop the others', async () => {
  const steps: string[] = []
  let failures = 0
  const component = repeat({
    name: 'maintenance',
    everyMs: 1,
    tasks: [
      {
        name: 'fails',
        run() {
          failures += 1
          return Promise.reject(new Error('The store is away.'))
        },
      },
      { name: 'works', run: async () => void steps.push('works') },
    ],
    log: { info() {}, warn() {} },
  })
  expect(steps).toEqual([])
  await component.start?.()
  await eventually(() => steps.length > 2)
  await component.close?.(1000)
  expect(failures).toBe(steps.length)
})

test('the log says once that a task fails, and once that it works again', async () => {
  const lines: object[] = []
  const line = (facts: object, message?: string) => void lines.push({ ...facts, message })
  const err = new Error('The store is away.')
  const outcomes = [() => {}, fail, fail, fail, () => {}, () => {}, fail]
  function fail() {
    throw err
  }
  const component = repeat({
    name: 'maintenance',
    everyMs: 1,
    tasks: [{ name: 'deletes', run: async () => outcomes.shift()?.() }],
    log: { info: line, warn: line },
  })
  await component.start?.()
  await eventually(() => outcomes.length === 0)
  await component.close?.(1000)
  const at = { component: 'maintenance', task: 'deletes' }
  expect(lines.slice(0, 3)).toEqual([
    { err, ...at, message: 'a task failed; it is tried again later' },
    { ...at, message: 'a task works again' },
    { err, ...at, message: 'a task failed; it is tried again later' },
  ])
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
      info() {},
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
