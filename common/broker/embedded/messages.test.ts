import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { groups, topics } from '../../messages/topics.ts'
import { temporaryFolder } from '../../testing/temporary-folder.ts'
import { type Messages, newRow, openMessages } from './messages.ts'
import { connect } from './schema.ts'

function open() {
  const folder = temporaryFolder()
  const db = connect(join(folder.path, 'broker.sqlite'))
  const messages = openMessages(db, topics.requests)
  return {
    db,
    messages,
    append: (text: string, timestampMs = 0) =>
      messages.append(
        [newRow({ topic: topics.requests, key: 'ana', value: Buffer.from(text), headers: [] })],
        timestampMs,
      ),
    /** What a group has committed. */
    commit: (next: number) =>
      db.run('INSERT OR REPLACE INTO consumer ("group", topic, next, epoch, beat) VALUES (?, ?, ?, 0, 0)', [
        groups.monitor,
        topics.requests,
        next,
      ]),
    [Symbol.dispose]() {
      db.close()
      folder.remove()
    },
  }
}

const offsetsOf = (messages: Messages, from = 0) => messages.from(from).map(({ offset }) => offset)

test('messages are read from an offset on, as they were appended', () => {
  using here = open()
  const { messages, append } = here
  expect([messages.oldest(), messages.end(), messages.from(0)]).toEqual([0, 0, []])
  expect([append('a', 5), append('b', 6)]).toEqual([0, 1])
  expect([messages.oldest(), messages.end()]).toEqual([0, 2])
  const common = { topic: topics.requests, partition: 0, headers: [] }
  expect(messages.from(1)).toMatchObject([{ ...common, offset: 1, timestampMs: 6 }])
  expect(Buffer.from(messages.from(1)[0]?.value ?? []).toString()).toBe('b')
  expect(Buffer.from(messages.from(1)[0]?.key ?? []).toString()).toBe('ana')
})

test('a batch is cut before it exceeds 1 MiB, unless a single message does', () => {
  using here = open()
  const { messages, append } = here
  // Each has 3 bytes of key and 2 of headers.
  const half = 'x'.repeat(512 * 1024 - 5)
  for (const text of [half, half, '', 'x'.repeat(2 * 1024 * 1024), 'last']) append(text)
  expect(offsetsOf(messages)).toEqual([0, 1])
  expect(offsetsOf(messages, 2)).toEqual([2])
  expect(offsetsOf(messages, 3)).toEqual([3])
  expect(offsetsOf(messages, 4)).toEqual([4])
})

test('what is from before a time is deleted, up to the first that is not, and no offset is used again', () => {
  using here = open()
  const { messages, append } = here
  for (const ms of [3, 4, 5, 2]) append(`${ms}`, ms)
  expect(messages.deleteSome({ beforeMs: 3, unread: true })).toBe(false)
  expect(offsetsOf(messages)).toEqual([0, 1, 2, 3])
  expect(messages.deleteSome({ beforeMs: 5, unread: true })).toBe(false)
  expect(offsetsOf(messages)).toEqual([2, 3])
  messages.deleteSome({ beforeMs: 9, unread: true })
  expect([messages.oldest(), messages.end()]).toEqual([4, 4])
  expect(append('next')).toBe(4)
})

test('what a group has not committed stays, whatever its age; what no group ever read goes only if that is asked for', () => {
  using here = open()
  const { messages, append, commit } = here
  for (const text of ['a', 'b', 'c']) append(text)
  messages.deleteSome({ beforeMs: 9, unread: false })
  expect(messages.oldest()).toBe(0)
  commit(2)
  for (const unread of [true, false]) messages.deleteSome({ beforeMs: 9, unread })
  expect(offsetsOf(messages)).toEqual([2])
})

test('at most 100 messages are deleted at once, and it is said whether there may be more', () => {
  using here = open()
  const { db, messages, append } = here
  db.transaction(() => {
    for (let n = 0; n < 150; n++) append(`${n}`)
  })()
  expect(messages.deleteSome({ beforeMs: 9, unread: true })).toBe(true)
  expect(messages.oldest()).toBe(100)
  expect(messages.deleteSome({ beforeMs: 9, unread: true })).toBe(false)
  expect(messages.oldest()).toBe(150)
})
