import { expect, test } from 'bun:test'
import { catalog, operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { isOffered, readGatewayConfig } from './config.ts'

test('an operation that requires a variable is offered where that is set, and every other one everywhere', () => {
  const requiring = { ...catalog.convert, requires: 'PAYOUT_URL' }
  expect(isOffered(requiring, { PAYOUT_URL: undefined })).toBe(false)
  expect(isOffered(requiring, { PAYOUT_URL: 'http://localhost:4000' })).toBe(true)
  expect(isOffered(catalog.convert, {})).toBe(true)
})

test('with an empty environment exactly the operations of the catalog that require nothing are offered', () => {
  const requiresNothing = operationTypes.filter((type) => {
    const contract: Contract = catalog[type]
    return contract.requires === undefined
  })
  expect([...readGatewayConfig({}).offered]).toEqual(requiresNothing)
})
