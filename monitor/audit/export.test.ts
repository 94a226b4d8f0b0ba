import { expect, test } from 'bun:test'
import { toEvent } from '../events/record.ts'
import { deliver, loggedIn, NOON_MS, requested } from '../testing/messages.ts'
import { link, START } from './chain.ts'
import { exportLines, readExport } from './export.ts'

const events = link(START, [toEvent(deliver(loggedIn('a')), NOON_MS), toEvent(deliver(requested('op-1')), NOON_MS)])
const [event] = events.map((each) => JSON.stringify(each))
const checkpoint = JSON.stringify({ checkpoint: 'x' })

async function* linesOf(texts: Iterable<string>) {
  yield* texts
}

/** What reading such lines to their end gives. */
async function readAll(texts: Iterable<string>) {
  const { checkpoints, pages } = await readExport(linesOf(texts))
  return { checkpoints, pages: await Array.fromAsync(pages) }
}

test('an export has the checkpoints as the store lists them, then the events, and is read back as it was', async () => {
  const asked: object[] = []
  const lines = await Array.fromAsync(
    exportLines({
      checkpoints: {
        async list(page) {
          asked.push(page)
          return ['newer', 'older'].map((jwt) => ({ jwt, atMs: 0 }))
        },
      },
      events: {
        async *inChainOrder() {
          yield events.slice(0, 1)
          yield events.slice(1)
        },
      },
    }),
  )
  expect(asked).toEqual([{ limit: 1000 }])
  const text = lines.join('')
  expect(text.endsWith('\n')).toBe(true)
  const read = await readAll(text.trimEnd().split('\n'))
  expect(read.checkpoints).toEqual(['newer', 'older'])
  expect(read.pages).toEqual([events])
})

test('an export is read in pages of at most 500 events, without an empty one', async () => {
  const sizes = async (count: number) =>
    (await readAll(Array.from({ length: count }, () => event ?? ''))).pages.map(({ length }) => length)
  expect(await sizes(0)).toEqual([])
  expect(await sizes(500)).toEqual([500])
  expect(await sizes(501)).toEqual([500, 1])
})

test.each([
  ['no JSON', 'x'],
  ['no line of an export', '{}'],
  ['an event with another member', JSON.stringify({ ...events[0], more: 1 })],
  ['a checkpoint with another member', JSON.stringify({ checkpoint: 'x', more: 1 })],
])('what is %s is refused with the number of its line', async (_what, line) => {
  await expect(readAll([checkpoint, event ?? '', line])).rejects.toThrow('Line 3 is no line of an export.')
})

test('a checkpoint after an event, or more than a store keeps, is no export', async () => {
  await expect(readAll([event ?? '', checkpoint])).rejects.toThrow('A checkpoint comes after an event')
  const most = Array.from({ length: 1000 }, () => checkpoint)
  expect((await readAll(most)).checkpoints).toHaveLength(1000)
  await expect(readAll([...most, checkpoint])).rejects.toThrow('this is no export')
})
