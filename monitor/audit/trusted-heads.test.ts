import { expect, test } from 'bun:test'
import { readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import { createSigner, DAY_MS } from '../testing/checkpoints.ts'
import { NOON_MS } from '../testing/messages.ts'
import { EVENT_RETENTION_MS, trustedHeadsFrom, trustedHeadsOf } from './trusted-heads.ts'

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

test('a checkpoint that was kept elsewhere is trusted by its own keys, or by those that are given', async () => {
  const kept = signed(3, NOON_MS)
  const known = { heads: [head(3)], starts: [], atMs: NOON_MS }
  expect(await trustedHeadsFrom({ kept }, [])).toEqual(known)
  expect(await trustedHeadsFrom({ kept, keys: signer.published() }, [])).toEqual(known)
  await expect(trustedHeadsFrom({ kept, keys: createSigner().published() }, [])).rejects.toThrow(
    'None of the keys has signed the checkpoint.',
  )
  await expect(trustedHeadsFrom({ kept: `${kept.slice(0, -4)}AAAA` }, [])).rejects.toThrow(
    'The checkpoint is damaged: its signature is not valid.',
  )
  await expect(trustedHeadsFrom({ kept: 'no checkpoint' }, [])).rejects.toThrow('The checkpoint is damaged')
})

test("of a store's own checkpoints the newest that a trusted key has signed counts, and nothing without such a key", async () => {
  const forged = createSigner().sign([head(9)], NOON_MS + 1000)
  const store = [forged, signed(5, NOON_MS), signed(4, NOON_MS - DAY_MS)]
  expect(await trustedHeadsFrom({}, store)).toEqual({ heads: [], starts: [] })
  const keys = signer.published()
  expect(await trustedHeadsFrom({ keys }, store)).toEqual({ heads: [head(5)], starts: [], atMs: NOON_MS })
  const kept = signed(3, NOON_MS - 2 * DAY_MS)
  expect(await trustedHeadsFrom({ kept }, store)).toEqual({ heads: [head(3), head(5)], starts: [], atMs: NOON_MS })
})

test('the kept checkpoint vouches for the keys that gateway signed with before', async () => {
  const gateway = createSigner()
  const older = gateway.sign([head(2)], NOON_MS + 1000)
  gateway.rotate()
  const kept = gateway.sign([head(3)], NOON_MS)
  const keys = gateway.published().slice(1)
  expect(await trustedHeadsFrom({ keys }, [older])).toEqual({ heads: [], starts: [] })
  expect((await trustedHeadsFrom({ kept, keys }, [older])).heads).toEqual([head(3), head(2)])
})
