import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { readProcessorConfig } from './config.ts'

test('every value has a default', () => {
  const config = readProcessorConfig({ DATA_DIR: '/somewhere' })
  expect(config.port).toBe(3001)
  expect(config.bounds).toEqual(new Map([['daily-usd', 10_000 * 1e8]])) // example
  expect(config.storeUrl).toBe(`file:${join('/somewhere', 'processor.db')}`)
})

// example {
test('the daily limit is exact to 1e-8 USD, up to ten million', () => {
  const limitOf = (text: string) => readProcessorConfig({ DAILY_LIMIT_USD: text }).bounds.get('daily-usd')
  expect(limitOf('0.00000001')).toBe(1)
  expect(limitOf('9999999.99999999')).toBe(999_999_999_999_999)
  expect(limitOf('10000000')).toBe(1_000_000_000_000_000)
})

test.each(['0', '0.0', '-1', '1e3', '10000000.00000001', '99999999', '1,000', '0.000000001', 'NaN', ' 1', '.5'])(
  'a daily limit of %p is refused',
  (text) => {
    expect(() => readProcessorConfig({ DAILY_LIMIT_USD: text })).toThrow('DAILY_LIMIT_USD: must be ')
  },
)
// }

test.each([
  'mongodb://host/name',
  'mongodb://user:secret@a:27017,b:27017/name?replicaSet=rs0',
  'file:data/x.db',
  'file:///x.db',
])('%s is a store', (url) => {
  expect(readProcessorConfig({ PROCESSOR_STORE_URL: url }).storeUrl).toBe(url)
})

test.each(['mongodb://host', 'mongodb://host/', 'mongodb://host/?w=1', 'file:', 'postgres://host/name', '/data/x.db'])(
  '%s is no store, and every fault is in the one message, without the values',
  (url) => {
    const read = () => readProcessorConfig({ PROCESSOR_STORE_URL: url, BROKER_URL: 'secret', PROCESSOR_PORT: '70000' })
    expect(read).toThrow(/PROCESSOR_PORT: (?:.|\n)*PROCESSOR_STORE_URL: must be file:path(?:.|\n)*BROKER_URL: must /)
    expect(read).not.toThrow('secret')
  },
)
