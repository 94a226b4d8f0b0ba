import type { Rule } from './check/violation.ts'
import type { FaultKind } from './plan.ts'

/** What the system does to keep its promises, and can be taken out of it, to see that the checker notices. */
export const safeguards = ['idempotency', 'offset-order', 'outbox', 'lease'] as const
export type Safeguard = (typeof safeguards)[number]

/** The faults that each safeguard is there for, and what must be found where it is missing. */
export const missing: Readonly<
  Record<Safeguard, { readonly what: string; readonly faults: readonly FaultKind[]; readonly rule: Rule }>
> = {
  idempotency: {
    what: 'processor performs again what is delivered again',
    faults: ['duplicates', 'kill gateway after-publish'],
    rule: 'outcomes differ',
  },
  'offset-order': {
    what: 'processor moves the offset before the effect is stored',
    faults: ['kill processor before-offset'],
    rule: 'not terminal',
  },
  outbox: {
    what: 'gateway forgets a request before the broker holds it',
    faults: ['kill gateway after-publish'],
    rule: 'not terminal',
  },
  lease: { what: 'every gateway sends, whoever holds the lease', faults: [], rule: 'sent twice in calm' },
}
