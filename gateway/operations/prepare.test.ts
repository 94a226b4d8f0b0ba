import { expect, test } from 'bun:test'
import { sample } from '@posta/common/testing/sample.ts'
import { fixedSources } from '../testing/operations.ts'
import { type Preparers, prepare } from './prepare.ts'

const { type } = sample
const ask = (preparer: Preparers[typeof type], maxMs?: number) =>
  prepare(type, sample.input(), 'ana', fixedSources, {
    preparers: { [type]: preparer },
    ...(maxMs !== undefined && { maxMs }),
  })

test('a submission is refused as unavailable where its preparer takes too long, even if that ignores the signal', async () => {
  await expect(ask(() => new Promise(() => {}), 20)).rejects.toMatchObject({
    code: 'unavailable',
    message: `What ${type} needs to know from outside could not be learned within 0.02 s.`,
    retryAfterS: 5,
  })
})

test('a fault of a preparer is not taken for an outage', async () => {
  await expect(ask(() => Promise.reject(new TypeError('a fault of ours')))).rejects.toThrow('a fault of ours')
})

test('an operation without a preparer has no facts', async () => {
  expect(await ask(undefined)).toBeUndefined()
})
