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
