import { expect, test } from 'bun:test'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import { deadLettered, decide } from './decide.ts'
import type { Request } from './read-asked.ts'
import type { ResultSummary } from './results/results.ts'
import { bounds, contracts, countingPerformers, NOON, NOON_MS } from './testing/requests.ts'

const done = { done: true } as const

function request(id: string, more: Partial<Request> = {}): Request {
  return {
    ...{ id, user: 'ana', type: sample.type, input: sample.input(), facts: sample.facts, createdAt: NOON },
    ...{ redrive: undefined, traceparent: undefined, position: { partition: 0, offset: 0, timestampMs: NOON_MS } },
    ...more,
  }
}
const inSteps = (more: Partial<Request> = {}) =>
  request('a', { type: stepped.type, input: stepped.input(), facts: stepped.facts, ...more })

const decideOn = (requests: readonly Request[], stored: readonly ResultSummary[] = []) =>
  decide(requests, {
    contracts,
    performers: countingPerformers(),
    bounds,
    settings: new Map(),
    stored: new Map(stored.map((result) => [result.id, result])),
    used: new Map(),
    cancelled: new Set(),
    now: () => NOON,
    monotonicMs: () => 0,
    onDecided() {},
  })

test('the results of a batch are stored at once, in order; one that replaces another stands by itself', () => {
  const stored = deadLettered(request('c'), NOON)
  const requests = ['a', 'b', 'c', 'd', 'e'].map((id) => request(id, { redrive: id === 'c' ? 'again' : undefined }))
  const { effects, verdicts } = decideOn(requests, [stored])
  expect(verdicts).toEqual([done, done, done, done, done])
  const ids = effects.map((effect) => ('append' in effect ? effect.append.map(({ id }) => id) : effect.replace.id))
  expect(ids).toEqual([['a', 'b'], 'c', ['d', 'e']])
})

test('a dead-lettered failure is performed again for a redrive alone, not for the request itself', () => {
  const stored = deadLettered(request('a'), NOON)
  const { effects, replies, verdicts } = decideOn([request('a')], [stored])
  expect({ effects, verdicts }).toEqual({ effects: [], verdicts: [done] })
  expect(replies).toHaveLength(1)
})

const { type, wrong } = sample
test.each<[string, Partial<Request>, string]>([
  ['input', { input: wrong.input }, `The request does not fit the contract of ${type}: #/input/${wrong.member} `],
  ['facts', { ...inSteps(), facts: {} }, `The request does not fit the contract of ${stepped.type}: #/facts/`],
])('a request whose %s do not fit the contract is dead, and the reason says where', (_, more, reason) => {
  const { verdicts, effects, replies } = decideOn([request('a', more)])
  expect(verdicts).toEqual([{ dead: expect.stringContaining(reason) }])
  expect({ effects, replies }).toEqual({ effects: [], replies: [] })
})

test("a request for another's operation that runs is dead, and starts nothing", () => {
  const { effects } = decideOn([inSteps()])
  const [running] = effects.flatMap((effect) => ('append' in effect ? effect.append : []))
  if (!running) throw new Error('Nothing was decided.')
  const { verdicts, runs, redriven } = decideOn([inSteps({ user: 'bob', redrive: 'again' })], [running])
  expect(verdicts).toEqual([{ dead: 'The operation is of another user.' }])
  expect({ runs, redriven }).toEqual({ runs: [], redriven: [] })
})

test('a request that comes twice in a batch has one run, with the place of the first', () => {
  const again = { partition: 0, offset: 1, timestampMs: NOON_MS + 1 }
  const { runs, verdicts } = decideOn([inSteps(), inSteps({ position: again })])
  expect(verdicts).toEqual([done, done])
  expect(runs).toMatchObject([{ id: 'a', position: inSteps().position }])
})
