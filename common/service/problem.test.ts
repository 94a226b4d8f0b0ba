import { expect, test } from 'bun:test'
import * as v from 'valibot'
import { checkInput, Problem } from './problem.ts'

const Input = v.strictObject({
  name: v.string(),
  kind: v.picklist(['a', 'b']),
  inner: v.strictObject({ 'a/b': v.number() }),
})

function faultsOf(input: unknown): unknown {
  try {
    checkInput(Input, input)
  } catch (error) {
    return error instanceof Problem && error.errors
  }
}

test('each fault of an input is told with its place and in words, and no value is repeated', () => {
  const secret = 'not to be repeated'
  expect(faultsOf({ kind: secret, inner: { 'a/b': secret }, extra: secret })).toEqual([
    { pointer: '#/name', detail: 'is missing' },
    { pointer: '#/kind', detail: 'must be one of "a", "b"' },
    { pointer: '#/inner/a~1b', detail: 'must be a number' },
    { pointer: '#/extra', detail: 'is not a member of this object' },
  ])
  expect(faultsOf(null)).toEqual([{ pointer: '#', detail: 'must be an object' }])
})

test('at most 20 faults are told', () => {
  const many = v.array(v.number())
  expect(() => checkInput(many, Array.from({ length: 100 }, String))).toThrow(
    expect.objectContaining({ errors: expect.objectContaining({ length: 20 }) }),
  )
})
