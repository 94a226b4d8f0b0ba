import { fdatasyncSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'

/** A ratio of two things that were measured in the same run. */
export const Figure = v.object({
  name: v.string(),
  ratio: v.number(),
  aim: v.union([v.object({ atLeast: v.number() }), v.object({ atMost: v.number() })]),
  /** What the ratio is of. Each name ends in its unit. */
  of: v.record(v.string(), v.number()),
})
export type Figure = v.InferOutput<typeof Figure>

export type Measure = () => number | Promise<number>

/**
 * Measures two things in turn, after one round that does not count. The ratio is the median of each round's ratio: what
 * else the machine does changes from second to second, and so affects both alike.
 * @param of the two measurements, first over second, by names that end in their unit
 */
export async function compare(
  figure: Pick<Figure, 'name' | 'aim'>,
  rounds: number,
  of: readonly [ours: readonly [string, Measure], theirs: readonly [string, Measure]],
): Promise<Figure> {
  const [[oursName, ours], [theirsName, theirs]] = of
  const pairs: { ours: number; theirs: number }[] = []
  for (let round = 0; round <= rounds; round++) {
    const pair = { ours: await ours(), theirs: await theirs() }
    if (round > 0) pairs.push(pair)
  }
  return {
    ...figure,
    ratio: median(pairs.map((pair) => pair.ours / pair.theirs)),
    of: {
      [oursName]: median(pairs.map((pair) => pair.ours)),
      [theirsName]: median(pairs.map((pair) => pair.theirs)),
    },
  }
}

/** NaN where there are no numbers. */
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

export function perSecond(count: number, elapsedMs: number): number {
  return (count / elapsedMs) * 1000
}

const PAGE = Buffer.alloc(4096, 1)

/** Returns a function that adds a page to a file in the folder and measures how long its fdatasync takes, in ms. */
export function fdatasyncMeter(folder: string): () => number {
  const file = openSync(join(folder, 'synced'), 'w')
  return () => {
    writeSync(file, PAGE)
    const startedMs = performance.now()
    fdatasyncSync(file)
    return performance.now() - startedMs
  }
}
