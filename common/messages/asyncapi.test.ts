import { expect, test } from 'bun:test'
import { Parser } from '@asyncapi/parser'
import { asyncApi } from './asyncapi.ts'
import { messages } from './events.ts'
import { topics } from './topics.ts'

test('the AsyncAPI document is valid and has every topic and every message', async () => {
  const { document, diagnostics } = await new Parser().parse(JSON.stringify(asyncApi()))
  expect(diagnostics.filter(({ severity }) => severity === 0)).toEqual([])
  expect(
    document
      ?.channels()
      .all()
      .map((channel) => channel.address()),
  ).toEqual(Object.values(topics))
  expect(
    document
      ?.allMessages()
      .all()
      .map((message) => message.name())
      .toSorted(),
  ).toEqual([...Object.keys(messages), 'dead-letter'].toSorted())
})
