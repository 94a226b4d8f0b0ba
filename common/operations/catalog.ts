import type { Contract } from './contract.ts'
import { convert } from './convert.ts'
import { payout } from './payout.ts'
import { storeRates } from './store-rates.ts'

/**
 * All operations. Add a new one here, its performer to `processor/performers/performers.ts` and, if it has facts, its
 * preparer to `gateway/preparers/preparers.ts`.
 */
export const catalog = {
  convert, // example
  payout, // example
  'store-rates': storeRates, // example
} as const

export type Catalog = typeof catalog
export type OperationType = keyof Catalog
export type Contracts = Readonly<Record<OperationType, Contract>>
/** The contracts as such, for what is done with each of them alike. */
export const contracts: readonly Contract[] = Object.values(catalog)
export const operationTypes = Object.keys(catalog) as [OperationType, ...OperationType[]]
