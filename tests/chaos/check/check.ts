import type { Snapshot } from '../snapshot.ts'
import { checkEvents } from './events.ts'
import { factsOf } from './facts.ts'
import { checkMoney } from './money.ts'
import { checkOrder } from './order.ts'
import { checkOutcomes } from './outcomes.ts'
import { checkServices } from './services.ts'
import type { Violation } from './violation.ts'

/** Every promise that is broken in what was gathered. Trusts no service: what can be computed is computed here, from scratch. */
export function check(snapshot: Snapshot): Violation[] {
  const facts = factsOf(snapshot)
  return [checkOutcomes, checkOrder, checkMoney, checkEvents, checkServices].flatMap((rules) => [...rules(facts)])
}
