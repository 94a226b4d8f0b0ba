import { expect, test } from 'bun:test'
import { sample } from '@posta/common/testing/sample.ts'
import { operations } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { createRead } from './read.ts'

async function open() {
  const { database, writer, close } = await openTemporary()
  return {
    read: createRead(database),
    close,
    async insert(id: string, userId = 'ana', given: Partial<typeof operations.$inferInsert> = {}) {
      const row = { id, userId, type: sample.type, input: sample.input(), createdAt: 0, ...given }
      await writer.write([database.insert(operations).values(row)])
    },
  }
}

test('an operation is shown to its owner, and is not found for anyone else', async () => {
  const { read, insert, close } = await open()
  await insert('op-1')
  await insert('op-2', 'bob')
  expect(await read.one('ana', 'op-1')).toMatchObject({ id: 'op-1', type: sample.type })
  for (const id of ['op-2', 'op-3'])
    await expect(read.one('ana', id)).rejects.toMatchObject({
      code: 'not-found',
      message: 'You have no operation with this id.',
    })
  await close()
})

test('how much progress an operation has is read with it, in bytes, and is 0 without any', async () => {
  const { read, insert, close } = await open()
  await insert('op-1')
  await insert('op-2', 'ana', { progress: { 1: { step: 'päy', status: 'done', at: '' } } })
  expect(await read.observe('ana', 'op-1')).toMatchObject({ operation: { id: 'op-1' }, progressBytes: 0 })
  expect(await read.observe('ana', 'op-2')).toMatchObject({
    operation: { id: 'op-2', progress: [{ step: 'päy' }] },
    progressBytes: Buffer.byteLength('{"1":{"step":"päy","status":"done","at":""}}'),
  })
  await close()
})

test('a page has the newest of the own operations, and its cursor leads to the next', async () => {
  const { read, insert, close } = await open()
  for (const id of ['op-2', 'op-1', 'op-3']) await insert(id)
  await insert('op-4', 'bob')
  const first = await read.page('ana', { limit: 2 })
  expect(first.items.map(({ id }) => id)).toEqual(['op-3', 'op-2'])
  const second = await read.page('ana', { limit: 2, cursor: first.next })
  expect(second.items.map(({ id }) => id)).toEqual(['op-1'])
  expect(second.next).toBeUndefined()
  expect((await read.page('ana', { limit: 3 })).next).toBeUndefined()
  for (const cursor of ['x', Buffer.from(JSON.stringify('a'.repeat(65))).toString('base64url')])
    await expect(read.page('ana', { limit: 2, cursor })).rejects.toMatchObject({ code: 'malformed-request' })
  await close()
})
