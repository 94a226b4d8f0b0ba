import { expect, test } from 'bun:test'
import codes from '@fawazahmed0/currency-api/v1/currencies.json' with { type: 'json' }
import { bundledSnapshot } from './snapshot.ts'

test('every currency of the list has a usable table, which contains dollars and pesos', async () => {
  const snapshot = bundledSnapshot()
  const bases = Object.keys(codes).map((code) => code.toUpperCase())
  expect(bases.length).toBeGreaterThan(300)
  for (const base of bases) {
    expect(snapshot.has(base)).toBe(true)
    const table = await snapshot.table(base)
    expect(table).toMatchObject({ base, source: 'bundled' })
    expect(table.rates.map(({ code }) => code)).toEqual(expect.arrayContaining(['USD', 'ARS', base]))
  }
})

test.each(['XQZ', 'usd', '../USD', '', 'CONSTRUCTOR', 'USD.MIN'])(
  '%p is not a currency, and no file is read for it',
  async (base) => {
    const snapshot = bundledSnapshot()
    expect(snapshot.has(base)).toBe(false)
    await expect(snapshot.table(base)).rejects.toThrow('no such currency')
  },
)
