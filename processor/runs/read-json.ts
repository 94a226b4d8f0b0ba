import type { Json } from '../performers/performer.ts'

const MAX_RESULT_BYTES = 64 * 1024

/** What JSON makes of a result; or what is wrong with it. `undefined` is a result, too. */
export function readJson(
  value: unknown,
): { readonly value: Json | undefined; readonly bytes: number } | { readonly fault: string } {
  if (value === undefined) return { value, bytes: 0 }
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch {
    // A circle, or a BigInt.
  }
  if (text === undefined) return { fault: 'is no JSON.' }
  const read: Json = JSON.parse(text)
  // JSON leaves out functions, and makes texts of dates and null of NaN: the run would go on with another result.
  if (!Bun.deepEquals(read, value)) return { fault: 'is no JSON: read again it is another value.' }
  const bytes = Buffer.byteLength(text)
  if (bytes > MAX_RESULT_BYTES) return { fault: `has ${bytes} bytes; at most ${MAX_RESULT_BYTES} are kept.` }
  return { value: read, bytes }
}
