import { decode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { problems } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { Run as RunFunction } from '../performers/performer.ts'
import { toReply } from '../reply.ts'
import type { Outcome, Result } from '../results/results.ts'
import type { Run, RunRecord } from './runs.ts'

/** Input and facts, as the contract reads them. They fitted when `decide` read them. */
export function factsOf({ input, facts }: Run, contract: Contract) {
  return { input: v.parse(contract.input, input), facts: v.parse(contract.facts, facts) }
}

/** Why an outcome cannot become a result and a reply; undefined if it can. */
export function faultOf(
  run: Run,
  outcome: Awaited<ReturnType<RunFunction<Contract>>>,
  contract: Contract,
): string | undefined {
  const { id, user, type, createdAt } = run
  const common = { id, user, type, createdAt, completedAt: createdAt }
  try {
    if ('failure' in outcome) {
      const { code } = outcome.failure
      if (!contract.failures.includes(code)) return `Its code failed with ${code}, which its contract does not name.`
      return faultOfReply(toReply({ ...common, status: 'failed', error: outcome.failure }, run))
    }
    const output = v.safeParse(contract.output, outcome.output)
    if (!output.success) return `Its output does not fit the contract: ${output.issues[0].message}.`
    return faultOfReply(toReply({ ...common, status: 'succeeded', output: output.output }, run))
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** Gateway must be able to read it. */
function faultOfReply(reply: Outgoing): string | undefined {
  const decoded = decode({ ...reply, key: Buffer.from(reply.key), partition: 0, offset: 0, timestampMs: 0 })
  return 'unreadable' in decoded ? `Its outcome makes no reply: ${decoded.unreadable}` : undefined
}

/** The result that an ended run comes to. What it counts is kept where it succeeded. */
export function outcomeOf(
  run: Run,
  records: readonly RunRecord[],
  stored: Result | undefined,
  contract: Contract,
): Result & Outcome {
  const ended = records.findLast((record) => record.kind === 'ended')
  if (!ended) throw new Error('The run has not ended.')
  const { id, user, type, createdAt, redrive } = run
  const { input, facts } = factsOf(run, contract)
  const completedAt = new Date(ended.atMs).toISOString()
  const common = { id, user, type, input, facts, createdAt, completedAt, redrive }
  if ('failure' in ended.outcome) {
    // A redrive that fails changes nothing: gateway has the failure by dead letter.
    const deadLettered = { code: 'dead-lettered', message: problems['dead-lettered'].help } as const
    return { ...common, status: 'failed', error: redrive === undefined ? ended.outcome.failure : deadLettered }
  }
  const { output, lookup } = ended.outcome
  return { ...common, status: 'succeeded', output: v.parse(contract.output, output), lookup, counts: stored?.counts }
}
