import { expect, test } from 'bun:test'
import { catalog, operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { readGatewayConfig } from './config.ts'

test('an operation that requires a variable is offered where that is set, and every other one everywhere', () => {
  const requiresNothing = operationTypes.filter((type) => {
    const contract: Contract = catalog[type]
    return contract.requires === undefined
  })
  expect([...readGatewayConfig({}).offered]).toEqual(requiresNothing)
  // example {
  expect([...readGatewayConfig({ PAYOUT_URL: '' }).offered]).toEqual(requiresNothing)
  expect(readGatewayConfig({ PAYOUT_URL: 'http://localhost:4000' }).offered).toContain('payout')
  // }
})

// example {
test('a required variable that is not as its contract has it stops the start', () => {
  expect(() => readGatewayConfig({ PAYOUT_URL: 'localhost:4000' })).toThrow('PAYOUT_URL: must be a URL')
})
// }

test('signing keys at a database server are encrypted in production, or come from TOKEN_KEYS', () => {
  const remote = { NODE_ENV: 'production', DATABASE_URL: 'libsql://database.example.com' }
  expect(() => readGatewayConfig(remote)).toThrow('KEY_ENCRYPTION_KEY: must be set in production')
  const one = Buffer.alloc(32, 'abc').toString('base64')
  const other = Buffer.alloc(32, 'xyz').toString('base64url')
  const KEY_ENCRYPTION_KEY = `${one}, ${other}`
  expect(readGatewayConfig({ ...remote, KEY_ENCRYPTION_KEY }).keyEncryptionKeys).toHaveLength(2)
  for (const given of [{ ...remote, NODE_ENV: 'development' }, { NODE_ENV: 'production' }])
    expect(readGatewayConfig(given).keyEncryptionKeys).toEqual([])
})

test('a key to encrypt with that has another length, or one byte alone, is refused and not shown', () => {
  const bad = ['short', Buffer.alloc(33, 'abc').toString('base64'), Buffer.alloc(32, 'a').toString('base64')]
  for (const KEY_ENCRYPTION_KEY of [...bad, `${Buffer.alloc(32, 'abc').toString('base64')},`]) {
    let message = ''
    try {
      readGatewayConfig({ KEY_ENCRYPTION_KEY })
    } catch (error) {
      message = String(error)
    }
    expect(message).toContain('KEY_ENCRYPTION_KEY: must be 32 random bytes in base64')
    expect(message).not.toContain(KEY_ENCRYPTION_KEY)
  }
})
