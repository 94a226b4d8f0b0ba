import { MessageTooLarge } from '@posta/common/broker/broker.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { repeat } from '@posta/common/service/repeat.ts'
import type { DeadLetters } from './dead-letters.ts'
import type { Decisions } from './decisions.ts'

const EVERY_MS = 2000
const LONGEST_PAUSE_MS = 10_000
const PAGE = 20

/**
 * Carries out decisions that were recorded but not confirmed: the process that recorded them was killed, or the broker was
 * down. It does not compare clocks: whoever records a decision carries it out at once, so a decision that is still
 * unconfirmed at the next look needs help. Two replicas that help at the same time publish the same messages, which have
 * their effect once.
 */
export function finishDecisions(options: {
  deadLetters: Pick<DeadLetters, 'unconfirmed'>
  decisions: Pick<Decisions, 'carryOut'>
  log: Pick<Logger, 'info' | 'warn' | 'error'>
  everyMs?: number
}): Component {
  const { deadLetters, decisions, log, everyMs = EVERY_MS } = options
  let seenBefore: ReadonlySet<string> = new Set()
  const tooLarge = new Set<string>()

  async function run(signal: AbortSignal): Promise<void> {
    const seen = new Set<string>()
    let finished = 0
    for (let afterId: string | undefined; !signal.aborted; ) {
      const page = await deadLetters.unconfirmed({ limit: PAGE, afterId })
      for (const decided of page) {
        if (signal.aborted) return
        seen.add(decided.id)
        if (!seenBefore.has(decided.id) || tooLarge.has(decided.id)) continue
        try {
          await decisions.carryOut([decided])
          finished++
        } catch (error) {
          if (!(error instanceof MessageTooLarge)) throw error
          tooLarge.add(decided.id)
          log.error({ err: error, deadLetter: decided.id }, 'a recorded redrive can never be sent: it is too large')
        }
      }
      afterId = page.at(-1)?.id
      if (page.length < PAGE) break
    }
    seenBefore = seen
    if (finished > 0) log.info({ finished }, 'unfinished decisions about dead letters were carried out')
  }

  return repeat({
    name: 'decisions',
    everyMs,
    longestPauseMs: LONGEST_PAUSE_MS,
    tasks: [{ name: 'carry out recorded decisions', run }],
    log,
  })
}
