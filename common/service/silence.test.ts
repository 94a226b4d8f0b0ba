import { expect, test } from 'bun:test'
import { createSilence } from './silence.ts'

const LOOK_MS = 200
let nowMs = 0
const newSilence = () => createSilence({ monotonicMs: () => nowMs, lookMs: LOOK_MS })

/** Looks at the same beat for `forMs`, and says whether the holder is silent then. */
function look(isSilent: (beat: string) => boolean, beat: string, forMs: number): boolean {
  let silent = isSilent(beat)
  for (let waitedMs = 0; waitedMs < forMs; waitedMs += LOOK_MS) {
    nowMs += LOOK_MS
    silent = isSilent(beat)
  }
  return silent
}

test('a holder is silent after 4 s without a new beat, and alive with each new one', () => {
  const isSilent = newSilence()
  expect(look(isSilent, 'beat 1', 3800)).toBe(false)
  expect(look(isSilent, 'beat 2', 3800)).toBe(false)
  expect(look(isSilent, 'beat 2', 400)).toBe(true)
})

test('a holder is not silent because this process slept for an hour itself', () => {
  const isSilent = newSilence()
  expect(isSilent('beat 1')).toBe(false)
  nowMs += 3_600_000
  expect(isSilent('beat 1')).toBe(false)
  expect(look(isSilent, 'beat 1', 4000)).toBe(true)
})
