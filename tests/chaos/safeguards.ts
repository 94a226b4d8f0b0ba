import type { Rule } from './check/violation.ts'
import type { FaultKind } from './faults.ts'

/** What the services do to keep their promises, and what a run can take out, to see that the checker notices. */
export const safeguards = ['idempotency', 'offset-order', 'outbox', 'lease', 'record'] as const
export type Safeguard = (typeof safeguards)[number]

/** For each safeguard: what happens without it, the faults that show it, and the rule that must find it. */
export const missing: Readonly<
  Record<Safeguard, { readonly what: string; readonly faults: readonly FaultKind[]; readonly rule: Rule }>
> = {
  idempotency: {
    what: 'processor performs a redelivered request again',
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
  lease: { what: 'every gateway sends, not the holder of the lease alone', faults: [], rule: 'sent twice in calm' },
  record: {
    what: 'the next step of a run begins before the last one is recorded',
    faults: ['kill processor after-call'],
    rule: 'history broken',
  },
}
