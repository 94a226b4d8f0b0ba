import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { takeBatch } from './topic-producer.ts'

describe('takeBatch', () => {
  const KIB = 1024

  test('takes at most 512 KiB of each partition', () => {
    const large = (partition: number) => ({ partition, bytes: 200 * KIB })
    const pending = [large(0), large(0), large(0), large(1), large(0)]
    const { batch, rest } = takeBatch(pending)
    expect(batch).toEqual([large(0), large(0), large(1)])
    expect(rest).toEqual([large(0), large(0)])
  })

  test('takes a message above 512 KiB alone', () => {
    const pending = [
      { partition: 0, bytes: 900 * KIB },
      { partition: 0, bytes: 1 },
    ]
    expect(takeBatch(pending)).toEqual({ batch: pending.slice(0, 1), rest: pending.slice(1) })
  })

  test('lets no small message overtake a large one of its partition', () => {
    const pending = [
      { partition: 0, bytes: 400 * KIB },
      { partition: 0, bytes: 400 * KIB },
      { partition: 0, bytes: 1 },
    ]
    expect(takeBatch(pending)).toEqual({ batch: pending.slice(0, 1), rest: pending.slice(1) })
  })

  test('takes every message once, in several batches, each partition in order and within 512 KiB', () => {
    const message = fc.record({ partition: fc.nat(3), bytes: fc.integer({ min: 1, max: 700 * KIB }) })
    fc.assert(
      fc.property(fc.array(message, { maxLength: 60 }), (messages) => {
        let pending = messages.map((each, order) => ({ ...each, order }))
        const sent: typeof pending = []
        while (pending.length > 0) {
          const { batch, rest } = takeBatch(pending)
          expect(batch.length).toBeGreaterThan(0)
          for (const [, share] of Map.groupBy(batch, ({ partition }) => partition)) {
            const bytes = share.reduce((sum, each) => sum + each.bytes, 0)
            expect(share.length === 1 || bytes <= 512 * KIB).toBe(true)
          }
          sent.push(...batch)
          pending = rest
        }
        for (const [, share] of Map.groupBy(sent, ({ partition }) => partition)) {
          expect(share).toEqual(share.toSorted((a, b) => a.order - b.order))
        }
        expect(sent).toHaveLength(messages.length)
      }),
    )
  })

  test('takes at most 1000 messages of a partition', () => {
    const pending = Array.from({ length: 2500 }, () => ({ partition: 0, bytes: 1 }))
    expect(takeBatch(pending).batch).toHaveLength(1000)
  })
})
