import * as v from 'valibot'
import type { StoredEvent } from '../events/events.ts'
import type { Store } from '../store/store.ts'

const EventLine = v.strictObject({
  id: v.string(),
  type: v.string(),
  timeMs: v.number(),
  minute: v.number(),
  user: v.optional(v.string()),
  operation: v.optional(v.string()),
  durationMs: v.optional(v.number()),
  chain: v.string(),
  seq: v.number(),
  previousHash: v.string(),
  hash: v.string(),
  text: v.string(),
})
const CheckpointLine = v.strictObject({ checkpoint: v.string() })
const Line = v.pipe(v.string(), v.parseJson(), v.union([EventLine, CheckpointLine]))

/** More than a store keeps. */
const MAX_CHECKPOINTS = 1000
const PAGE = 500

/** Lines of JSON, some at a time: the store's checkpoints, newest first, and then its events in the order of their chains. */
export async function* exportLines(store: {
  readonly checkpoints: Pick<Store['checkpoints'], 'list'>
  readonly events: Pick<Store['events'], 'inChainOrder'>
}): AsyncGenerator<string, void> {
  for (const { jwt } of await store.checkpoints.list({ limit: MAX_CHECKPOINTS }))
    yield `${JSON.stringify({ checkpoint: jwt })}\n`
  for await (const page of store.events.inChainOrder()) yield page.map((event) => `${JSON.stringify(event)}\n`).join('')
}

/**
 * Reads an export, one page at a time.
 * @throws Error, here or while the pages are read, that names a line which no export has
 */
export async function readExport(
  lines: AsyncIterable<string>,
): Promise<{ checkpoints: readonly string[]; pages: AsyncGenerator<readonly StoredEvent[], void> }> {
  const items = itemsOf(lines)
  const checkpoints: string[] = []
  let next = await items.next()
  while (!next.done && 'checkpoint' in next.value && checkpoints.length < MAX_CHECKPOINTS) {
    checkpoints.push(next.value.checkpoint)
    next = await items.next()
  }
  async function* pages(): AsyncGenerator<readonly StoredEvent[], void> {
    let page: StoredEvent[] = []
    for (; !next.done; next = await items.next()) {
      if ('checkpoint' in next.value) throw new Error('A checkpoint comes after an event: this is no export.')
      page.push(next.value)
      if (page.length < PAGE) continue
      yield page
      page = []
    }
    if (page.length > 0) yield page
  }
  return { checkpoints, pages: pages() }
}

async function* itemsOf(
  lines: AsyncIterable<string>,
): AsyncGenerator<StoredEvent | v.InferOutput<typeof CheckpointLine>, void> {
  let number = 0
  for await (const line of lines) {
    number += 1
    const read = v.safeParse(Line, line)
    if (!read.success) throw new Error(`Line ${number} is no line of an export.`)
    const item = read.output
    yield 'checkpoint' in item
      ? item
      : { ...item, user: item.user, operation: item.operation, durationMs: item.durationMs }
  }
}
