import { expect, test } from 'bun:test'
import { fixedSources } from '../testing/operations.ts'
import { prepare } from './prepare.ts'

const input = { base: 'USD' }

test('a submission is refused as unavailable where its preparer takes too long, even if that ignores the signal', async () => {
  const never = { ...fixedSources, rates: { table: () => new Promise<never>(() => {}) } }
  await expect(prepare('store-rates', input, 'ana', never, 20)).rejects.toMatchObject({
    code: 'unavailable',
    message: 'What store-rates needs to know from outside could not be learned within 0.02 s.',
    retryAfterS: 5,
  })
})

test('a fault of a preparer is not taken for an outage', async () => {
  const faulty = { ...fixedSources, rates: { table: () => Promise.reject(new TypeError('a fault of ours')) } }
  await expect(prepare('store-rates', input, 'ana', faulty)).rejects.toThrow('a fault of ours')
})
