import { expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { fixedSources, usdTable } from '../testing/operations.ts'
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

test('a preparer learns the facts from the input as the contract reads it', async () => {
  const asked: string[] = []
  const table = async (base: string) => {
    asked.push(base)
    return usdTable
  }
  expect(await prepare('store-rates', { base: 'usd' }, 'ana', { ...fixedSources, rates: { table } })).toEqual(usdTable)
  expect(asked).toEqual(['USD'])
})

test('the refusal of a preparer is the answer to the submission', async () => {
  const refusal = new Problem('rates-unavailable', 'No host answers.', { retryAfterS: 60 })
  const refusing = { ...fixedSources, rates: { table: () => Promise.reject(refusal) } }
  await expect(prepare('store-rates', input, 'ana', refusing)).rejects.toBe(refusal)
})
