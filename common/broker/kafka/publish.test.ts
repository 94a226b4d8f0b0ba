import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { cutSend } from './publish.ts'

describe('cutSend', () => {
  const KIB = 1024

  test('takes at most 512 KiB of a partition, and of the others what they have', () => {
    const large = (partition: number) => ({ partition, bytes: 200 * KIB })
    const waiting = [large(0), large(0), large(0), large(1), large(0)]
    const { now, later } = cutSend(waiting)
    expect(now).toEqual([large(0), large(0), large(1)])
    expect(later).toEqual([large(0), large(0)])
  })

  test('a message that is larger by itself goes alone', () => {
    const waiting = [
      { partition: 0, bytes: 900 * KIB },
      { partition: 0, bytes: 1 },
    ]
    expect(cutSend(waiting)).toEqual({ now: waiting.slice(0, 1), later: waiting.slice(1) })
  })

  test('a small message does not overtake a large one of its partition', () => {
    const waiting = [
      { partition: 0, bytes: 400 * KIB },
      { partition: 0, bytes: 400 * KIB },
      { partition: 0, bytes: 1 },
    ]
    expect(cutSend(waiting)).toEqual({ now: waiting.slice(0, 1), later: waiting.slice(1) })
  })

  test('whatever waits, repeated cuts send all of it once, each partition in its order, within the bounds', () => {
    const message = fc.record({ partition: fc.nat(3), bytes: fc.integer({ min: 1, max: 700 * KIB }) })
    fc.assert(
      fc.property(fc.array(message, { maxLength: 60 }), (messages) => {
        let waiting = messages.map((each, order) => ({ ...each, order }))
        const sent: typeof waiting = []
        while (waiting.length > 0) {
          const { now, later } = cutSend(waiting)
          expect(now.length).toBeGreaterThan(0)
          for (const [, share] of Map.groupBy(now, ({ partition }) => partition)) {
            const bytes = share.reduce((sum, each) => sum + each.bytes, 0)
            expect(share.length === 1 || bytes <= 512 * KIB).toBe(true)
          }
          sent.push(...now)
          waiting = later
        }
        for (const [, share] of Map.groupBy(sent, ({ partition }) => partition)) {
          expect(share).toEqual(share.toSorted((a, b) => a.order - b.order))
        }
        expect(sent).toHaveLength(messages.length)
      }),
    )
  })

  test('many small messages of a partition go in several sends', () => {
    const waiting = Array.from({ length: 2500 }, () => ({ partition: 0, bytes: 1 }))
    expect(cutSend(waiting).now).toHaveLength(1000)
  })
})
