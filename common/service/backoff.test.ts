import { expect, test } from 'bun:test'
import { backoff, pause } from './backoff.ts'

test('each pause is twice as long as the one before, up to the bound; a success begins anew', async () => {
  const attempts = backoff({ firstMs: 1, longestMs: 5 })
  const pausesMs: number[] = []
  const next = async () => {
    pausesMs.push(attempts.pauseMs)
    await attempts.pause()
  }
  for (let n = 0; n < 5; n++) await next()
  attempts.reset()
  for (let n = 0; n < 2; n++) await next()
  expect(pausesMs).toEqual([1, 2, 4, 5, 5, 1, 2])
})

test('a pause ends at once when its signal aborts, or had aborted before', async () => {
  const closing = new AbortController()
  const paused = backoff({ firstMs: 60_000, longestMs: 60_000 }).pause(closing.signal)
  closing.abort()
  await paused
  await pause(60_000, closing.signal)
})
