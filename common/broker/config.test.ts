import { expect, test } from 'bun:test'
import { commonEntries, type Environment, readConfig } from '../service/config.ts'
import { brokerEntries, brokerFault, resolveBrokerConfig } from './config.ts'

const read = (environment: Environment) => readConfig({ ...commonEntries, ...brokerEntries }, environment, brokerFault)

test('without a URL the broker is a file in DATA_DIR; one that is empty is one that is not set', () => {
  for (const environment of [{ DATA_DIR: '/somewhere' }, { DATA_DIR: '/somewhere', BROKER_URL: '' }]) {
    const values = read(environment)
    expect(resolveBrokerConfig(values, values.DATA_DIR).url).toBe('file:/somewhere/broker.db')
  }
})

test('a URL that names no broker is told, and nothing of it is repeated', () => {
  let message = ''
  try {
    read({ BROKER_URL: 'amqp://user:secret@host', LOG_LEVEL: 'loud' })
  } catch (error) {
    message = String(error)
  }
  expect(message).toMatch(/LOG_LEVEL: must[\s\S]*BROKER_URL: must/)
  expect(message).not.toContain('secret')
})

test.each([
  [
    'credentials that nobody asks for',
    { BROKER_URL: 'kafka://h', BROKER_USERNAME: 'ana' },
    'BROKER_URL: must say sasl=',
  ],
  [
    'a login without credentials',
    { BROKER_URL: 'kafka://h?sasl=plain' },
    'BROKER_USERNAME and BROKER_PASSWORD: must be',
  ],
])('%s are told together with every other fault', (_, environment, fault) => {
  expect(() => read(environment)).toThrow(fault)
  expect(() => read({ ...environment, LOG_LEVEL: 'loud' })).toThrow(/LOG_LEVEL: must.*BROKER_/s)
})
