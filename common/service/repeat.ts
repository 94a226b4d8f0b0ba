import { setTimeout as sleep } from 'node:timers/promises'
import type { Part } from './lifecycle.ts'
import type { Logger } from './log.ts'

interface Task {
  readonly name: string
  /** Ends soon after `signal` aborts, with nothing half done. */
  run(signal: AbortSignal): Promise<void>
}

/**
 * A part that runs tasks, one after the other, at its start and then each time `everyMs` after their end. One that fails
 * keeps no other from its turn, and is tried again the next time.
 */
export function repeat(options: {
  name: string
  everyMs: number
  tasks: readonly Task[]
  log: Pick<Logger, 'warn'>
}): Part {
  const { name, everyMs, tasks, log } = options
  const closing = new AbortController()
  const { signal } = closing
  let running: Promise<void> | undefined

  async function run(): Promise<void> {
    while (!signal.aborted) {
      for (const task of tasks) {
        if (signal.aborted) return
        await task.run(signal).catch((error: unknown) => {
          log.warn({ err: error, part: name, task: task.name }, 'a task failed; it is tried again later')
        })
      }
      await sleep(everyMs, undefined, { signal }).catch(() => {})
    }
  }

  return {
    name,
    async start() {
      running = run()
    },
    async close() {
      closing.abort()
      await running
    },
  }
}

/**
 * Deletes in portions, so that what else waits for the store has its turn in between.
 * @param deleteSome deletes at most `atOnce`, and resolves to how many it did
 * @returns how many were deleted, all in all
 */
export async function deleteAll(
  deleteSome: (atOnce: number) => Promise<number>,
  signal: AbortSignal,
  atOnce = 500,
): Promise<number> {
  let deleted = 0
  for (let last = atOnce; last === atOnce && !signal.aborted; deleted += last) last = await deleteSome(atOnce)
  return deleted
}
