import { convert } from './convert.ts'
import { storeRates } from './store-rates.ts'

/** Every operation that can be asked for. A new one is added here and to `processor/performers`. */
export const catalog = { convert, 'store-rates': storeRates } as const

export type Catalog = typeof catalog
export type OperationType = keyof Catalog
export const operationTypes = Object.keys(catalog) as [OperationType, ...OperationType[]]
