import type { Subscription } from '../broker/broker.ts'
import { backoff } from '../service/backoff.ts'
import type { Component } from '../service/component.ts'
import { ConfigError } from '../service/config.ts'
import type { Logger } from '../service/log.ts'
import type { Outages } from './outages.ts'

const LONGEST_PAUSE_MS = 2000

/** A subscription as a component. Its `check` fails unless its state is `running`. */
export type Consumer = Subscription & Required<Pick<Component, 'name' | 'start' | 'check'>>

/**
 * `start` resolves at once, since the broker may be down: it is `recovering` until `subscribe` has succeeded. A ConfigError
 * ends it, after any other it tries again.
 */
export function createConsumer(
  { name, log, firstPauseMs }: { name: string; log: Logger; firstPauseMs: number },
  outages: Pick<Outages, 'ongoing'>,
  subscribe: () => Promise<Subscription>,
): Consumer {
  const closing = new AbortController()
  const ended = Promise.withResolvers<void>()
  let subscription: Subscription | undefined
  let running: Promise<void> | undefined
  let failed = false
  // The service learns of it from `ended`, health from `state`.
  ended.promise.catch(() => {
    failed = true
  })

  async function run(): Promise<void> {
    const pauses = backoff({ firstMs: firstPauseMs, longestMs: LONGEST_PAUSE_MS })
    while (!subscription && !closing.signal.aborted) {
      try {
        subscription = await subscribe()
      } catch (error) {
        if (error instanceof ConfigError) throw error
        log.warn({ err: error, pauseMs: pauses.pauseMs }, 'the subscription cannot be made yet')
        await pauses.pause(closing.signal)
      }
    }
    if (closing.signal.aborted) await subscription?.close()
    await subscription?.ended
  }

  function state(): ReturnType<Subscription['state']> {
    if (failed) return 'failed'
    if (outages.ongoing()) return 'recovering'
    return subscription?.state() ?? 'recovering'
  }

  return {
    name,
    ended: ended.promise,
    state,
    lag: () => subscription?.lag() ?? [],
    async start() {
      running = run()
      running.then(ended.resolve, ended.reject)
    },
    check() {
      if (state() !== 'running') throw new Error(`The consumer of ${name} is ${state()}.`)
    },
    async close(graceMs) {
      closing.abort()
      await (subscription ? subscription.close(graceMs) : running)
    },
  }
}
