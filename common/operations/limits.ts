import { contracts } from './catalog.ts'
import type { Limit } from './contract.ts'

/** Every limit that operations of the catalog count against, once. */
export const limits: readonly Limit[] = [...new Set(contracts.flatMap(({ limit }) => limit ?? []))]
