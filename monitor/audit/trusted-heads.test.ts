import { expect, test } from 'bun:test'
import { readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import { createSigner, DAY_MS } from '../testing/checkpoints.ts'
import { NOON_MS } from '../testing/messages.ts'
import { EVENT_RETENTION_MS, trustedHeadsOf } from './trusted-heads.ts'

const signer = createSigner()
const head = (seq: number) => ({ chain: 'posta.events/0', seq, hash: 'a'.repeat(64) })
const signed = (seq: number, atMs: number) => signer.sign([head(seq)], atMs)

async function read(jwt: string) {
  const checkpoint = await readCheckpoint(jwt, signer.findKey)
  if (!checkpoint) throw new Error('It is signed.')
  return checkpoint
}

test('in whatever order checkpoints come, the newest says the time, and the newest old enough where chains begin', async () => {
  const trusted = await Promise.all([signed(8, NOON_MS), signed(7, NOON_MS - DAY_MS)].map(read))
  const oldMs = NOON_MS - EVENT_RETENTION_MS
  const others = [signed(1, oldMs - DAY_MS), signed(2, oldMs), signed(3, oldMs + 1000)]
  for (const [first, second] of [
    [trusted, others],
    [trusted.toReversed(), others.toReversed()],
  ] as const) {
    const { heads, ...rest } = await trustedHeadsOf(first, second)
    expect(rest).toEqual({ atMs: NOON_MS, starts: [head(2)] })
    expect(heads).toEqual(first.flatMap((checkpoint) => checkpoint.heads))
  }
})

test('without a trusted checkpoint nothing is known, whatever others say', async () => {
  expect(await trustedHeadsOf([], [signed(1, 0)])).toEqual({ heads: [], starts: [] })
})
