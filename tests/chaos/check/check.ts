import type { Snapshot } from '../snapshot.ts'
import { checkEvents } from './events.ts'
import { factsOf } from './facts.ts'
import { checkMoney } from './money.ts'
import { checkOrder } from './order.ts'
import { checkOutcomes } from './outcomes.ts'
import { checkPayouts } from './payouts.ts'
import { checkRuns } from './runs.ts'
import { checkServices } from './services.ts'
import { checkTold } from './told.ts'
import type { Violation } from './violation.ts'

/** Finds every broken promise in what a run gathered. It uses no code of the services: it computes everything anew. */
export function check(snapshot: Snapshot): Violation[] {
  const facts = factsOf(snapshot)
  return [
    checkOutcomes,
    checkOrder,
    checkMoney,
    checkPayouts,
    checkRuns,
    checkTold,
    checkEvents,
    checkServices,
  ].flatMap((rules) => [...rules(facts)])
}
