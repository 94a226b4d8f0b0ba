import { expect, test } from 'bun:test'
import * as v from 'valibot'
import { payout } from './payout.ts'

const input = { from: 'usd', to: 'ars', amount: '100.50', payee: 'AR-1' }

test('a payout has a payee beside what a conversion has', () => {
  expect(v.parse(payout.input, input)).toEqual({ from: 'USD', to: 'ARS', amount: '100.50', payee: 'AR-1' })
  expect(v.is(payout.input, { ...input, payee: 'x'.repeat(100) })).toBe(true)
})

test.each([undefined, '', ' ', 'a b', 'a\n', 'x'.repeat(101), 'José', 7])('%p is no payee', (payee) => {
  expect(v.is(payout.input, { ...input, payee })).toBe(false)
})

test('an approval is yes or no, and nothing else', () => {
  const { payload } = payout.signals.approve
  expect(v.is(payload, { approved: true })).toBe(true)
  for (const given of [{}, { approved: 'yes' }, { approved: true, note: 'fine' }])
    expect(v.is(payload, given)).toBe(false)
})

test('without settings the provider is not set, and what is worth more than 1000 USD needs an approval', () => {
  const settings = v.object(payout.settings)
  expect(v.parse(settings, {})).toEqual({ APPROVAL_ABOVE_USD: '1000' })
  for (const given of [{ PAYOUT_URL: 'ftp://x' }, { APPROVAL_ABOVE_USD: '1e3' }, { APPROVAL_ABOVE_USD: '-1' }])
    expect(v.is(settings, given)).toBe(false)
})
