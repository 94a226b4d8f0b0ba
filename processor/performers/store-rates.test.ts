import { expect, test } from 'bun:test'
import { storeRates } from './store-rates.ts'

const rates = {
  base: 'USD',
  date: '2026-11-23',
  source: 'mirror' as const,
  rates: [
    { code: 'ARS', rate: '1472.5' },
    { code: 'EUR', rate: '0.86' },
  ],
}
const limits = { countedUsdE8: 0, dailyLimitUsdE8: 0 }

test('says which table is stored, and counts nothing', () => {
  expect(storeRates({ input: { base: 'USD' }, rates, ...limits })).toEqual({
    output: { base: 'USD', date: '2026-11-23', currencies: 2, source: 'mirror' },
  })
})

test('it throws for a table of another currency: the message is wrong, and there is no outcome', () => {
  expect(() => storeRates({ input: { base: 'EUR' }, rates, ...limits })).toThrow('The rates are of USD, not of EUR.')
})
