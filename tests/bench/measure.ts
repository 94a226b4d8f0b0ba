import { fdatasyncSync, mkdtempSync, openSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'

/** What was measured over what it is compared with, both in the same run. */
export const Figure = v.object({
  name: v.string(),
  ratio: v.number(),
  aim: v.union([v.object({ atLeast: v.number() }), v.object({ atMost: v.number() })]),
  /** What the ratio is of. Each name ends in its unit. */
  of: v.record(v.string(), v.number()),
})
export type Figure = v.InferOutput<typeof Figure>

/** The ratio of two measurements, and the median of each. */
export interface Compared {
  readonly ratio: number
  readonly ours: number
  readonly theirs: number
}

/**
 * Measures in turn, after one turn that does not count, and compares each with its neighbour: what else the machine does
 * changes from second to second, and so meets both.
 */
export async function inTurn(
  rounds: number,
  ours: () => number | Promise<number>,
  theirs: () => number | Promise<number>,
): Promise<Compared> {
  const pairs: { ours: number; theirs: number }[] = []
  for (let round = 0; round <= rounds; round++) {
    const pair = { ours: await ours(), theirs: await theirs() }
    if (round > 0) pairs.push(pair)
  }
  return {
    ratio: median(pairs.map((pair) => pair.ours / pair.theirs)),
    ours: median(pairs.map((pair) => pair.ours)),
    theirs: median(pairs.map((pair) => pair.theirs)),
  }
}

/** NaN of nothing. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const upper = sorted[sorted.length >> 1] ?? Number.NaN
  const lower = sorted[(sorted.length - 1) >> 1] ?? Number.NaN
  return (lower + upper) / 2
}

/** How long `work` takes, in ms. */
export async function timeMs(work: () => unknown): Promise<number> {
  const startedMs = performance.now()
  await work()
  return performance.now() - startedMs
}

/** Within the folder that `bun run bench` removes. */
export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'measured-'))
}

const PAGE = Buffer.alloc(4096, 1)

/** Makes the function that adds a page to a file in the folder and measures how long its fdatasync takes, in ms. */
export function fdatasyncMeter(folder: string): () => number {
  const file = openSync(join(folder, 'synced'), 'w')
  return () => {
    writeSync(file, PAGE)
    const startedMs = performance.now()
    fdatasyncSync(file)
    return performance.now() - startedMs
  }
}
