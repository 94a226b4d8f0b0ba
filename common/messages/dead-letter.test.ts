import { expect, test } from 'bun:test'
import { deadLetterId, occurrenceOf } from './dead-letter.ts'
import { topics } from './topics.ts'

test('the id of a dead letter tells its occurrence, where it has one', () => {
  for (const topic of Object.values(topics)) {
    const original = { topic, partition: 3, offset: 17, timestampMs: 1_795_521_600_000 }
    expect(occurrenceOf(deadLetterId(original))).toBeUndefined()
    for (const occurrence of [0, 42]) expect(occurrenceOf(deadLetterId(original, occurrence))).toBe(occurrence)
  }
  expect(occurrenceOf('what another program wrote')).toBeUndefined()
})
