import { expect, test } from 'bun:test'
import { within } from './deadline.ts'

test('what comes in time is the result, whether it resolves or rejects', async () => {
  expect(await within(Promise.resolve('in time'), 10_000, 'It')).toBe('in time')
  await expect(within(Promise.reject(new Error('away')), 10_000, 'It')).rejects.toThrow('away')
})

test('what does not come in time is rejected with what took too long', async () => {
  await expect(within(new Promise(() => {}), 1, 'The answer')).rejects.toThrow('The answer took longer than 1 ms.')
})
