import { setTimeout as sleep } from 'node:timers/promises'
import { MessageTooLarge } from '@posta/common/broker/broker.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Logger } from '@posta/common/service/log.ts'
import type { DeadLetters } from './dead-letters.ts'
import type { Decisions } from './decisions.ts'

const EVERY_MS = 2000
const LONGEST_PAUSE_MS = 10_000
const PAGE = 20

/**
 * Carries out decisions that were recorded and not confirmed: the process that recorded them was killed, or the broker
 * down. No clock is trusted with how old one is: whoever records a decision carries it out at once, so one that is still
 * there at the next look needs help. Two replicas that help at the same time publish the same, which has its effect once.
 */
export function finishDecisions(parts: {
  deadLetters: Pick<DeadLetters, 'unconfirmed'>
  decisions: Pick<Decisions, 'carryOut'>
  log: Pick<Logger, 'info' | 'warn' | 'error'>
  everyMs?: number
}): Component {
  const { deadLetters, decisions, log, everyMs = EVERY_MS } = parts
  const closing = new AbortController()
  const { signal } = closing
  let seen: ReadonlySet<string> = new Set()
  const hopeless = new Set<string>()
  let running: Promise<void> | undefined

  async function look(): Promise<void> {
    const found = new Set<string>()
    let finished = 0
    for (let afterId: string | undefined; !signal.aborted; ) {
      const page = await deadLetters.unconfirmed({ limit: PAGE, afterId })
      for (const recorded of page) {
        if (signal.aborted) return
        found.add(recorded.id)
        if (!seen.has(recorded.id) || hopeless.has(recorded.id)) continue
        try {
          await decisions.carryOut([recorded])
          finished++
        } catch (error) {
          if (!(error instanceof MessageTooLarge)) throw error
          hopeless.add(recorded.id)
          log.error({ err: error, deadLetter: recorded.id }, 'a redrive that was recorded can never be sent')
        }
      }
      afterId = page.at(-1)?.id
      if (page.length < PAGE) break
    }
    seen = found
    if (finished > 0) log.info({ finished }, 'decisions about dead letters that were left half-way are carried out')
  }

  async function run(): Promise<void> {
    let pauseMs = everyMs
    while (!signal.aborted) {
      try {
        await look()
        pauseMs = everyMs
      } catch (error) {
        log.warn({ err: error, pauseMs }, 'decisions about dead letters cannot be carried out yet; trying again')
        pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)
      }
      await sleep(pauseMs, undefined, { signal }).catch(() => {})
    }
  }

  return {
    name: 'decisions',
    async start() {
      running = run()
    },
    async close() {
      closing.abort()
      await running
    },
  }
}
