import { expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
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

test('a preparer learns the facts from the input as the contract reads it', async () => {
  const asked: unknown[] = []
  const facts = { learned: 'something' }
  const learn: Preparers[typeof type] = async ({ input, user }) => {
    asked.push(input, user)
    return facts
  }
  const given = { preparers: { [type]: learn } }
  expect(await prepare(type, sample.sameInput, 'ana', fixedSources, given)).toEqual(facts)
  expect(asked).toEqual([sample.input(), 'ana'])
})

test('the refusal of a preparer is the answer to the submission', async () => {
  const refusal = new Problem('unavailable', 'No host answers.', { retryAfterS: 60 })
  await expect(ask(() => Promise.reject(refusal))).rejects.toBe(refusal)
})
