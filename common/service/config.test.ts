import { expect, test } from 'bun:test'
import { commonEntries, type Environment, readConfig, settle } from './config.ts'

const config = (environment: Environment) => settle(readConfig(commonEntries, environment))

test('nothing set is a system on this machine, in files below the repository', () => {
  expect(config({})).toMatchObject({
    host: '127.0.0.1',
    gatewayUrl: 'http://127.0.0.1:3000',
    processorUrl: 'http://127.0.0.1:3001',
    monitorUrl: 'http://127.0.0.1:3002',
    tokenIssuer: 'http://127.0.0.1:3000',
    jwksUrl: 'http://127.0.0.1:3000/.well-known/jwks.json',
    brokerUrl: expect.stringMatching(/^file:\/.*\/data\/broker\.db$/),
    allowedOrigins: ['http://127.0.0.1:3000', 'http://127.0.0.1:3001', 'http://127.0.0.1:3002'],
  })
})

test('an empty variable is one that is not set', () => {
  expect(config({ GATEWAY_URL: '', DATA_DIR: '', BROKER_URL: '' })).toEqual(config({}))
})

test('addresses follow from HOST, the ports and what is set of the URLs', () => {
  expect(config({ HOST: '0.0.0.0', GATEWAY_PORT: '8080' }).gatewayUrl).toBe('http://localhost:8080')
  expect(config({ HOST: '::1' }).monitorUrl).toBe('http://[::1]:3002')
  expect(config({ GATEWAY_URL: 'https://api.example.com/' })).toMatchObject({
    tokenIssuer: 'https://api.example.com',
    jwksUrl: 'https://api.example.com/.well-known/jwks.json',
    allowedOrigins: ['https://api.example.com', 'http://127.0.0.1:3001', 'http://127.0.0.1:3002'],
  })
})

test('every fault is told in one message, and no value is repeated', () => {
  const bad = {
    GATEWAY_PORT: '70000',
    HOST: 'a b',
    BROKER_URL: 'amqp://user:secret@host',
    GATEWAY_URL: 'ftp://secret',
    LOG_LEVEL: 'loud',
    NODE_ENV: 'prod',
    TRUSTED_PROXIES: '10.0.0.0/99',
    ALLOWED_ORIGINS: '*',
  }
  let message = ''
  try {
    config(bad)
  } catch (error) {
    message = String(error)
  }
  for (const name of Object.keys(bad)) expect(message).toContain(`${name}: must`)
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
  expect(() => config(environment)).toThrow(fault)
  expect(() => config({ ...environment, LOG_LEVEL: 'loud' })).toThrow(/LOG_LEVEL: must.*BROKER_/s)
})
