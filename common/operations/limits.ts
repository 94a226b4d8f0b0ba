import { type Catalog, catalog, type OperationType } from './catalog.ts'
import type { Limit } from './contract.ts'

type CatalogLimit = Extract<Catalog[OperationType], { readonly limit: Limit }>['limit']
export type LimitVariable = CatalogLimit['variable']

/** Every limit that operations of the catalog count against, once. */
export const limits: readonly CatalogLimit[] = [
  ...new Set(Object.values(catalog).flatMap((contract) => ('limit' in contract ? [contract.limit] : []))),
]
