import { expect, test } from 'bun:test'
import { readTable } from './read-table.ts'

const read = (answer: unknown) => readTable('USD', 'live', answer)
const withRates = (rates: unknown) => read({ date: '2026-11-23', usd: rates })

test('an answer becomes a table: codes in upper case, rates as plain decimals', () => {
  expect(withRates({ usd: 1, ars: 1472.5, btc: 1.5e-9 })).toEqual({
    table: {
      base: 'USD',
      date: '2026-11-23',
      source: 'live',
      rates: [
        { code: 'USD', rate: '1' },
        { code: 'ARS', rate: '1472.5' },
        { code: 'BTC', rate: '0.0000000015' },
      ],
    },
  })
})

test.each([
  ['zero', 0],
  ['negative', -1],
  ['NaN', Number.NaN],
  ['infinite', JSON.parse('1e999')],
  ['absurdly large', 1e21],
  ['absurdly small', 1e-21],
  ['null', null],
  ['text', '1472.5'],
])('one rate that is %s makes the whole answer unusable', (_, rate) => {
  expect(withRates({ usd: 1, eur: 0.9, ars: rate })).toEqual({ unreadable: 'its rate of ars is no plausible number' })
})

test.each([
  ['an array', []],
  ['null', null],
  ['text', 'usd'],
  ['without a date', { usd: { ars: 1 } }],
  ['dated by something else', { date: 'yesterday', usd: { ars: 1 } }],
  ["another currency's", { date: '2026-11-23', eur: { ars: 1 } }],
  ['without rates', { date: '2026-11-23', usd: {} }],
  ['with rates in an array', { date: '2026-11-23', usd: [1, 2] }],
  [
    'of more rates than there are currencies',
    {
      date: '2026-11-23',
      usd: Object.fromEntries(Array.from({ length: 1001 }, (_, index) => [`c${index}`, 1])),
    },
  ],
])('an answer that is %s is refused', (_, answer) => {
  expect(read(answer)).toHaveProperty('unreadable')
})

test('a base that is not worth exactly one of itself is refused', () => {
  expect(withRates({ usd: 1.1, ars: 1472.5 })).toHaveProperty('unreadable')
})

test('an entry whose name is not a currency code is left out, and the others stay', () => {
  const rates = JSON.parse('{"ars": 1472.5, "a b": 2, "x": 3, "ARS": 9, "elevenchars": 4, "__proto__": 5}')
  expect(withRates(rates)).toMatchObject({ table: { rates: [{ code: 'ARS', rate: '1472.5' }] } })
})
