import { expect, test } from 'bun:test'
import { createPlan, describePlan } from './plan.ts'

const MINUTE_MS = 60_000

test('a plan follows from its seed alone, and another seed gives another plan', () => {
  const make = (seed: string) => describePlan(createPlan({ parts: 'real', seed, lengthMs: MINUTE_MS }))
  expect(make('1')).toBe(make('1'))
  expect(make('2')).not.toBe(make('1'))
})

test.each([
  ['embedded', 1],
  ['real', 2],
] as const)('with %s parts, %d min have every kind of fault', (parts, minutes) => {
  const kinds = (lengthMs: number) =>
    new Set(createPlan({ parts, seed: '1', lengthMs }).injections.map(({ kind }) => kind))
  expect([...kinds(minutes * MINUTE_MS)].sort()).toEqual([...kinds(60 * MINUTE_MS)].sort())
})

test.each(['embedded', 'real'] as const)('with %s parts, 20 min have every kind at least twelve times', (parts) => {
  for (const seed of ['1', '2', '3', '4']) {
    const { injections } = createPlan({ parts, seed, lengthMs: 20 * MINUTE_MS })
    const rare = [...Map.groupBy(injections, ({ kind }) => kind)].filter(([, { length }]) => length < 12)
    expect(rare.map(([kind]) => kind)).toEqual([])
  }
})

test('within a lane a fault begins after the one before, and all end within the time', () => {
  const { injections, lengthMs } = createPlan({ parts: 'real', seed: '1', lengthMs: 5 * MINUTE_MS })
  for (const lane of Map.groupBy(injections, (each) => each.lane).values())
    for (const [index, { atMs, lastsMs }] of lane.entries()) {
      const next = lane[index + 1]
      expect(atMs + lastsMs).toBeLessThanOrEqual(next ? next.atMs : lengthMs)
    }
})
