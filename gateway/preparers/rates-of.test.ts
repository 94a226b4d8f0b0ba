import { expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { ratesForOrder } from './rates-of.ts'

const table = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live' as const,
  rates: [
    { code: 'ARS', rate: '1472.5' },
    { code: 'EUR', rate: '0.8' },
  ],
}
const rates = { table: async () => table }

test('an order gets the rates that it needs, and no others', async () => {
  expect(await ratesForOrder({ from: 'USD', to: 'ARS' }, rates)).toEqual({
    ...table,
    rates: [
      { code: 'ARS', rate: '1472.5' },
      { code: 'USD', rate: '1' },
    ],
  })
})

test('a currency without a rate is refused, with a pointer to the member that names it', async () => {
  const unknown = (member: string) => ({ code: 'unknown-currency', errors: [{ pointer: `#/input/${member}` }] })
  await expect(ratesForOrder({ from: 'USD', to: 'XYZ' }, rates)).rejects.toMatchObject(unknown('to'))
  const none = { table: () => Promise.reject(new Problem('unknown-currency')) }
  await expect(ratesForOrder({ from: 'XYZ', to: 'USD' }, none)).rejects.toMatchObject(unknown('from'))
})
