import { expect, test } from 'bun:test'
import { continueTrace, traceparent, withTrace } from '@posta/common/service/trace.ts'
import { sql } from 'drizzle-orm'
import { openTemporary } from '../testing/database.ts'
import { eventAdder } from './events.ts'
import { countOutbox, MAX_ROWS } from './outbox.ts'
import { outbox } from './schema.ts'

const addEvent = eventAdder({ now: () => Date.UTC(2026, 10, 23, 12), newId: () => 'event-1' })
const registered = (condition?: Parameters<typeof addEvent>[2], given?: Parameters<typeof addEvent>[3]) =>
  addEvent('posta.user.registered', { user: 'ana' }, condition, given)

test('an event enters the outbox with the time, a new id and the trace of the work that it belongs to', async () => {
  const { database, writer, close } = await openTemporary()
  const trace = continueTrace(undefined)
  await writer.write([withTrace(trace, () => registered())])
  const event = {
    id: 'event-1',
    type: 'posta.user.registered' as const,
    time: '2026-11-23T12:00:00.000Z',
    traceparent: traceparent(trace),
    data: { user: 'ana' },
  }
  expect(await database.select().from(outbox)).toEqual([{ id: 1, operationId: null, event }])
  await close()
})

test('an event keeps the id and the subject that it is given, and enters the outbox only if its condition is true', async () => {
  const { database, writer, close } = await openTemporary()
  const given = { id: 'op-1.cancel', subject: 'op-1' }
  await writer.write([registered(sql`1 = 0`), registered(sql`1 = 1`, given)])
  expect(await database.select().from(outbox)).toMatchObject([{ event: given }])
  await close()
})

test('an event that is too large for a message is refused before it enters the outbox', () => {
  const user = 'a'.repeat(256 * 1024)
  expect(() => addEvent('posta.user.registered', { user })).toThrow(
    expect.objectContaining({ code: 'payload-too-large' }),
  )
})

test('the outbox counts the rows that wait, from the lowest to the highest id', async () => {
  const { database, writer, close } = await openTemporary()
  expect(await countOutbox(database)).toBe(0)
  await writer.write([registered(), registered(), registered()])
  await writer.write([sql`DELETE FROM ${outbox} WHERE id = 1`])
  expect(await countOutbox(database)).toBe(2)
  await close()
})

test('the last event for which there is room enters a full outbox; the next is refused as overloaded, with all that it is written with', async () => {
  const { database, writer, close } = await openTemporary()
  await writer.write([registered()])
  // As full as if there were a row for every id in between.
  await writer.write([sql`INSERT INTO ${outbox} (id, operation_id) VALUES (${MAX_ROWS - 1}, 'op-1')`])
  await writer.write([registered()])
  expect(await countOutbox(database)).toBe(MAX_ROWS)
  const refused = writer.write([sql`UPDATE ${outbox} SET operation_id = 'op-2' WHERE id > 1`, registered()])
  await expect(refused).rejects.toMatchObject({
    code: 'overloaded',
    message: 'Too many messages wait to be sent already.',
    retryAfterS: 10,
  })
  expect(await database.select({ id: outbox.operationId }).from(outbox)).toEqual([
    { id: null },
    { id: 'op-1' },
    { id: null },
  ])
  await close()
})
