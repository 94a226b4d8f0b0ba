import { expect, test } from 'bun:test'
import { eventually } from '@posta/common/testing/eventually.ts'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { maintenance } from './maintenance.ts'
import { succeeded } from './results/results.suite.ts'
import { openEmbedded } from './store/embedded.ts'
import { newRun } from './testing/run-to-end.ts'

const DAY_MS = 24 * 60 * 60 * 1000

test('results are deleted 400 days after their operations were performed, runs 30 days later; younger ones stay', async () => {
  const here = freshFile(openEmbedded)
  const { results, runs } = here.open()
  const performedMs = Date.UTC(2026, 10, 23)
  const at = (ms: number) => ({ completedAt: new Date(performedMs + ms).toISOString() })
  await results.append([
    ...Array.from({ length: 1100 }, (_, index) => succeeded(`old-${index}`, at(0))),
    succeeded('younger', at(1000)),
  ])
  let nowMs = performedMs + 400 * DAY_MS
  let rounds = 0
  const left = async () => (await results.page({ limit: 2000 })).length
  const component = maintenance({
    results: {
      async deleteBefore(...asked) {
        rounds += 1
        return results.deleteBefore(...asked)
      },
    },
    runs,
    deps: { now: () => nowMs },
    log: { info() {}, warn() {} },
    everyMs: 1,
  })
  await component.start?.()
  await eventually(() => rounds >= 2)
  expect(await left()).toBe(1101)
  nowMs += 1
  await eventually(async () => (await left()) === 1)
  const ended = (id: string, atMs: number) => {
    const run = newRun({ id, createdAt: new Date(atMs).toISOString() })
    return { ...run, head: { ...run.head, state: 'ended', holder: undefined } as const }
  }
  await runs.create([ended('old', nowMs - 431 * DAY_MS), ended('younger', nowMs - 429 * DAY_MS)])
  await eventually(async () => (await runs.get('old')) === undefined)
  expect(await runs.get('younger')).toBeDefined()
  await component.close?.(1000)
  expect(await results.get('younger')).toBeDefined()
  await here.dispose()
})
