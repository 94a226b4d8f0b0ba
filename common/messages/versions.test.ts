import { expect, test } from 'bun:test'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { decode } from './envelope.ts'
import { messages } from './events.ts'
import { topics } from './topics.ts'

/** Messages as each version of the schemas wrote them. A file is never changed: what it holds lies in topics and stores. */
const folder = join(import.meta.dir, 'versions')
const Recorded = v.array(
  v.object({
    topic: v.picklist(Object.values(topics)),
    key: v.string(),
    headers: v.record(v.string(), v.string()),
    value: v.unknown(),
  }),
)

test.each(readdirSync(folder))('every message that version %s wrote can be read', async (file) => {
  const recorded = v.parse(Recorded, await Bun.file(join(folder, file)).json())
  for (const { topic, key, headers, value } of recorded) {
    const decoded = decode({
      topic,
      partition: 0,
      offset: 0,
      timestampMs: 0,
      key: Buffer.from(key),
      value: Buffer.from(JSON.stringify(value)),
      headers: Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]),
    })
    expect(decoded).toMatchObject({ envelope: { id: headers.ce_id, type: headers.ce_type, data: value } })
  }
})

test('the newest version has a message of each type', async () => {
  const newest = readdirSync(folder)
    .toSorted((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))
    .at(-1)
  const recorded = v.parse(Recorded, await Bun.file(join(folder, newest ?? '')).json())
  expect(new Set(recorded.map(({ headers }) => headers.ce_type))).toEqual(new Set(Object.keys(messages)))
})
