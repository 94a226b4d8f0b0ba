// The beat of a processor that holds runs, and the holders whose beat stands still.
import { pause } from '@posta/common/service/backoff.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { createSilence } from '@posta/common/service/silence.ts'
import type { Runs } from './runs.ts'

const BEAT_MS = 1000
/** A beat that nobody needs is removed after so many. */
const IDLE_BEATS = 10

export interface Holders {
  /** Stores a beat, unless there is one. Others take a run over from a holder without a beat, so call it before you hold one. */
  beatFirst(): Promise<void>
  /** Beats while this processor holds runs, whatever else takes its time, until `close`. */
  start(): void
  /**
   * What others hold whose beat has stood still for seconds, and what the store says that this processor holds. Call it at
   * least every `lookMs`.
   */
  look(): Promise<readonly { readonly holder: string; readonly runs: readonly string[] }[]>
  /** Stops beating and removes the beat: whoever is left without one is taken over. */
  close(): Promise<void>
}

/**
 * @param options.me the name by which this processor holds runs
 * @param options.isHolding whether it holds any, or is about to
 */
export function createHolders(options: {
  readonly runs: Pick<Runs, 'beat' | 'forget' | 'holders'>
  readonly me: string
  readonly isHolding: () => boolean
  readonly lookMs: number
  readonly log: Pick<Logger, 'warn'>
  readonly deps: Pick<Deps, 'monotonicMs'>
}): Holders {
  const { runs, me, isHolding, lookMs, log, deps } = options
  const silences = new Map<string, ReturnType<typeof createSilence>>()
  /** Holders that died, and whose beats are still stored. */
  const dead = new Set<string>()
  const stopping = new AbortController()
  let beat = 0
  let idleBeats = IDLE_BEATS
  let beating: Promise<void> | undefined

  async function keepBeating(): Promise<void> {
    for (; !stopping.signal.aborted; await pause(BEAT_MS, stopping.signal)) {
      if (idleBeats >= IDLE_BEATS) continue
      idleBeats = isHolding() ? 0 : idleBeats + 1
      // A beat that fails is missed: the next one comes in a second.
      const written = idleBeats < IDLE_BEATS ? runs.beat(me, ++beat) : runs.forget(me)
      await written.catch((error: unknown) => log.warn({ err: error }, 'the beat of the held runs was not stored'))
    }
  }

  function isSilent(holder: string, beat: number): boolean {
    const silence = silences.get(holder) ?? createSilence({ monotonicMs: deps.monotonicMs, lookMs })
    silences.set(holder, silence)
    return silence(String(beat))
  }

  return {
    async beatFirst() {
      if (idleBeats < IDLE_BEATS) return
      await runs.beat(me, ++beat)
      idleBeats = 0
    },
    start() {
      beating = keepBeating()
    },
    async look() {
      const holders = await runs.holders()
      const names = new Set(holders.map(({ holder }) => holder))
      for (const name of silences.keys()) if (!names.has(name)) silences.delete(name)
      // Others have its runs now, so nobody needs its beat.
      for (const name of dead) if (!names.has(name) && dead.delete(name)) await runs.forget(name)
      const found = holders.filter(({ holder, beat }) => holder === me || isSilent(holder, beat))
      for (const { holder } of found) if (holder !== me) dead.add(holder)
      return found
    },
    async close() {
      stopping.abort()
      await beating
      if (idleBeats < IDLE_BEATS) await runs.forget(me).catch(() => {})
    },
  }
}
