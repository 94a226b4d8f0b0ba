import { expect, test } from 'bun:test'
import { commonEntries, type Environment, readConfig, resolveConfig } from './config.ts'

const config = (environment: Environment) => resolveConfig('gateway', readConfig(commonEntries, environment))

test('nothing set is a system on this machine, in files below the repository', () => {
  expect(config({})).toMatchObject({
    host: '127.0.0.1',
    port: 3000,
    urls: {
      gateway: 'http://127.0.0.1:3000',
      processor: 'http://127.0.0.1:3001',
      monitor: 'http://127.0.0.1:3002',
    },
    tokenIssuer: 'http://127.0.0.1:3000',
    jwksUrl: 'http://127.0.0.1:3000/.well-known/jwks.json',
    dataDir: expect.stringMatching(/^\/.*\/data$/),
    allowedOrigins: ['http://127.0.0.1:3000', 'http://127.0.0.1:3001', 'http://127.0.0.1:3002'],
  })
})

test('an empty variable is one that is not set', () => {
  expect(config({ GATEWAY_URL: '', DATA_DIR: '' })).toEqual(config({}))
})

test('addresses follow from HOST, the ports and what is set of the URLs', () => {
  expect(config({ HOST: '0.0.0.0', GATEWAY_PORT: '8080' }).urls.gateway).toBe('http://localhost:8080')
  expect(config({ HOST: '::1' }).urls.monitor).toBe('http://[::1]:3002')
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
