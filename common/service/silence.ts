const SILENT_MS = 4000

/**
 * Whether the holder of a lease is dead: it raises its beat every second, and one that has stood still for 4 s is silent.
 * The time in which this process itself slept does not count, so look at the beat at least every `lookMs`.
 * @returns takes the beat as it is now, and tells whether the holder is silent
 * @example
 * const isSilent = createSilence({ monotonicMs: deps.monotonicMs, lookMs: 200 })
 * if (isSilent(`${row.epoch} ${row.beat}`)) await takeOver(row)
 */
export function createSilence(options: {
  readonly monotonicMs: () => number
  readonly lookMs: number
}): (beat: string) => boolean {
  const { monotonicMs, lookMs } = options
  let seen: string | undefined
  let seenAtMs = 0
  let silentMs = 0
  return (beat) => {
    const nowMs = monotonicMs()
    silentMs = beat === seen ? silentMs + Math.min(nowMs - seenAtMs, 2 * lookMs) : 0
    seen = beat
    seenAtMs = nowMs
    return silentMs >= SILENT_MS
  }
}
