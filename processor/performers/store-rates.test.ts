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
const asked = {
  id: 'op',
  user: 'ana',
  createdAt: '2026-11-23T12:00:00.000Z',
  facts: rates,
  limit: { used: 0, bound: Number.POSITIVE_INFINITY },
  settings: {},
}

test('says which table is stored, and counts nothing', () => {
  expect(storeRates.decide({ ...asked, input: { base: 'USD' } })).toEqual({
    output: { base: 'USD', date: '2026-11-23', currencies: 2, source: 'mirror' },
    lookup: { key: 'USD', order: '2026-11-23' },
  })
})

test('it throws for a table of another currency: the message is wrong, and there is no outcome', () => {
  expect(() => storeRates.decide({ ...asked, input: { base: 'EUR' } })).toThrow('The rates are of USD, not of EUR.')
})
