// 5. Performs the operation: a pure function. Next: gateway/operations/receive-results.ts
import type { Catalog } from '@posta/common/operations/catalog.ts'
import { orderAtRate } from './order.ts'
import type { Performer } from './performer.ts'

/** An order at the day's rate. It fails if it would exceed the limit. */
export const convert: Performer<Catalog['convert']> = {
  decide(asked) {
    const placed = orderAtRate('conversion', asked)
    if ('failure' in placed) return placed
    const { amount, rate, counts } = placed.order
    const { date, source } = asked.facts
    return { output: { amount, currency: asked.input.to, rate, date, source }, counts }
  },
}
