import type { Component } from './component.ts'
import { within } from './deadline.ts'
import type { Logger } from './log.ts'
import { repeat } from './repeat.ts'
import type { Counted, Tally } from './tally.ts'

const EVERY_MS = 5000

/** Something that was counted, as an event tells of it. The times are RFC 3339; `id` stays the same if it is told again. */
export interface Told<Item> {
  readonly id: string
  readonly item: Item
  readonly count: number
  readonly from: string
  readonly to: string
}

/**
 * A component that tells every 5 s, and when it closes, what was counted. What `tell` rejects for is told again the next time.
 * A process that is killed loses what it counted since the last time.
 */
export function tellCounted<Item>(options: {
  name: string
  tally: Tally<Item>
  tell: (counted: readonly Told<Item>[]) => Promise<void>
  newId: () => string
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component {
  const { name, tally, tell, newId, log, everyMs = EVERY_MS } = options
  let telling: readonly Told<Item>[] = []

  async function run(): Promise<void> {
    if (telling.length === 0) telling = tally.take().map((counted) => ({ ...toTold(counted), id: newId() }))
    if (telling.length === 0) return
    await tell(telling)
    telling = []
  }

  const repeated = repeat({ name, everyMs, tasks: [{ name: 'tell', run }], log })
  return {
    ...repeated,
    async close(graceMs) {
      await repeated.close?.(graceMs)
      // What could not be told before, and what came since.
      await within(run().then(run), graceMs, 'Telling what was refused')
    },
  }
}

const toTold = <Item>({ item, count, fromMs, toMs }: Counted<Item>) => ({
  item,
  count,
  from: new Date(fromMs).toISOString(),
  to: new Date(toMs).toISOString(),
})
