import * as v from 'valibot'
import { Problem } from './problem.ts'

/** The query of every list; spread it into a `strictObject` with the list's own filters. */
export const pageQuery = {
  limit: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^(?:[1-9]\d?|100)$/, 'must be a whole number from 1 to 100'),
      v.transform(Number),
      v.metadata({ description: 'How many items at most: 1 to 100.', default: 20 }),
    ),
    '20',
  ),
  cursor: v.optional(v.pipe(v.string(), v.metadata({ description: '`next` of the page before.' }))),
}

/** A page of a list, newest first; `next` is the `cursor` of the following page, absent on the last. */
export function pageOf<Item extends v.GenericSchema>(item: Item) {
  return v.object({ items: v.array(item), next: v.optional(v.string()) })
}

/** Clients must not look into a cursor, so its content may change. */
export function encodeCursor(position: unknown): string {
  return Buffer.from(JSON.stringify(position)).toString('base64url')
}

/** @throws Problem `malformed-request` if `text` is not a cursor of this list. */
export function decodeCursor<Schema extends v.GenericSchema>(
  schema: Schema,
  text: string | undefined,
): v.InferOutput<Schema> | undefined {
  if (text === undefined) return undefined
  const json = text.length <= 512 ? Buffer.from(text, 'base64url').toString() : ''
  const position = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), json)
  if (position.success) return position.output
  throw new Problem(
    'malformed-request',
    '`cursor` is not one that this list gave: send `next` of the page before, as it stands.',
  )
}

/** A page of what a store found when it was asked for `limit + 1` items: the one more means that there is a next page. */
export function toPage<Item, Shown>(
  found: readonly Item[],
  limit: number,
  show: (item: Item) => Shown,
  position: (item: Item) => unknown,
): { items: Shown[]; next?: string } {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  const page = { items: items.map(show) }
  return found.length > limit && last !== undefined ? { ...page, next: encodeCursor(position(last)) } : page
}
