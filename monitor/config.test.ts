import { expect, test } from 'bun:test'
import { readMonitorConfig } from './config.ts'

test('without any variable it works with nothing installed', () => {
  const { port, storeUrl, broker } = readMonitorConfig({ DATA_DIR: '/tmp/posta' })
  expect({ port, storeUrl, brokerUrl: broker.url }).toEqual({
    port: 3002,
    storeUrl: 'file:/tmp/posta/monitor.db',
    brokerUrl: 'file:/tmp/posta/broker.db',
  })
})

test.each(['mongodb://localhost/posta', 'mongodb://a:1,b:2/posta?replicaSet=rs', 'file:data/monitor.db'])(
  'the store may be at %s',
  (url) => {
    expect(readMonitorConfig({ MONITOR_STORE_URL: url }).storeUrl).toBe(url)
  },
)

test.each([
  'mongodb://localhost',
  'mongodb://localhost/',
  'mongodb://localhost/?w=1',
  'postgres://localhost/posta',
  'file:',
])('the store cannot be at %s, and the message names the variable and not the value', (url) => {
  expect(() => readMonitorConfig({ MONITOR_STORE_URL: url })).toThrow(
    /MONITOR_STORE_URL: must (?!.*localhost\b.*localhost)/,
  )
})
