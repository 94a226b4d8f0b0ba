import { expect, test } from 'bun:test'
import { eventually } from './eventually.ts'

test('a wait ends as soon as its condition holds', async () => {
  let asked = 0
  await eventually(async () => ++asked === 3)
  expect(asked).toBe(3)
})

test('a condition that does not hold in time fails the test and is shown', async () => {
  const messages: string[] = []
  const waiting = eventually(() => messages.length > 0, 20)
  await expect(waiting).rejects.toThrow(/^Not within 20 ms: .*messages\.length > 0/)
})
