import type { Catalog } from '../../common/operations/catalog.ts'
import { payout } from '../../processor/performers/payout.ts'
import { Later, type RunContext } from '../../processor/performers/performer.ts'

type Context = RunContext<Catalog['payout']>
type Step = Context['step']

/** So that a provider which is away for seconds makes a run stuck, and a run that goes on does so soon. */
const hurried = { timeoutMs: 3000, attempts: 3, firstPauseMs: 300, longestPauseMs: 2000 }

/**
 * Gives the steps of payouts another policy, in this process.
 * @param options.recorded false: as if a step need not be recorded before the next one begins, none is
 */
export function hurryPayouts({ recorded }: { readonly recorded: boolean }): void {
  const { run } = payout
  payout.run = (context) => run({ ...context, step: recorded ? hurriedStep(context) : unrecordedStep(context) })
}

const hurriedStep =
  ({ step }: Pick<Context, 'step'>): Step =>
  (name, work, options) =>
    step(name, async (given) => soon(await work(given)), { ...options, ...hurried })

/** A payment that is pending is looked at again within a second, so that none is left when the run is checked. */
const soon = <Result>(result: Result | Later) =>
  result instanceof Later ? new Later(Math.min(result.delayMs, 1000)) : result

const unrecordedStep =
  ({ id }: Pick<Context, 'id'>): Step =>
  async (name, work) => {
    for (let attempt = 1; ; attempt++) {
      const given = { idempotencyKey: `${id}/${name}`, attempt, signal: AbortSignal.timeout(10_000) }
      const result = await work(given).catch(() => new Later(hurried.firstPauseMs))
      if (!(result instanceof Later)) return result
      await Bun.sleep(result.delayMs)
    }
  }
