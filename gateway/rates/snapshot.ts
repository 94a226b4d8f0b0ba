import codes from '@fawazahmed0/currency-api/v1/currencies.json' with { type: 'json' }
import type { RateTable } from '@posta/common/operations/rates.ts'
import { LRUCache } from 'lru-cache'
import { readTable } from './read-table.ts'

/** The rates of one past day that come with the package: the last fallback, and the list of known currencies. */
export interface Snapshot {
  /** @param base in upper case */
  has(base: string): boolean
  /** Rejects where the snapshot has no such currency, or its table cannot be read. */
  table(base: string): Promise<RateTable>
}

export function bundledSnapshot(): Snapshot {
  const known = new Set(Object.keys(codes).map((code) => code.toUpperCase()))
  const folder = new URL('currencies/', import.meta.resolve('@fawazahmed0/currency-api/v1/currencies.json'))
  // While no host answers every submission reads here. 100 tables take about 7 MB.
  const tables = new LRUCache<string, RateTable>({ max: 100 })

  return {
    has: (base) => known.has(base),

    async table(base) {
      // Only a code of the list becomes part of a path.
      if (!known.has(base)) throw new Error('The snapshot has no such currency.')
      const earlier = tables.get(base)
      if (earlier) return earlier
      const read = readTable(base, 'bundled', await Bun.file(new URL(`${base.toLowerCase()}.json`, folder)).json())
      if ('unreadable' in read) throw new Error(`The snapshot of ${base} cannot be used: ${read.unreadable}.`)
      tables.set(base, read.table)
      return read.table
    },
  }
}
