import { backoff, pause } from './backoff.ts'
import type { Component } from './component.ts'
import type { Logger } from './log.ts'

interface Task {
  readonly name: string
  /** Ends soon after `signal` aborts, with nothing half done. */
  run(signal: AbortSignal): Promise<void>
}

/**
 * A component that runs tasks, one after the other, at its start and then each time `everyMs` after their end. A task that
 * fails does not stop the others, and is tried again: `everyMs` later, or, with `longestPauseMs`, after pauses that grow up
 * to that.
 * @example
 * repeat({ name: 'retention', everyMs: 60_000, tasks: [{ name: 'delete old results', run: deleteOld }], log })
 */
export function repeat(options: {
  name: string
  everyMs: number
  longestPauseMs?: number
  tasks: readonly Task[]
  log: Pick<Logger, 'warn'>
}): Component {
  const { name, everyMs, longestPauseMs = everyMs, tasks, log } = options
  const closing = new AbortController()
  const { signal } = closing
  const pauses = backoff({ firstMs: everyMs, longestMs: longestPauseMs })
  let running: Promise<void> | undefined

  /** Whether it succeeded. */
  async function attempt(task: Task): Promise<boolean> {
    try {
      await task.run(signal)
      return true
    } catch (error) {
      log.warn({ err: error, component: name, task: task.name }, 'a task failed; it is tried again later')
      return false
    }
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      let succeeded = true
      for (const task of tasks) if (!signal.aborted) succeeded = (await attempt(task)) && succeeded
      if (succeeded) pauses.reset()
      await (succeeded ? pause(everyMs, signal) : pauses.pause(signal))
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
 * Deletes in portions, so that others get their turn at the store in between.
 * @param deleteSome deletes at most `atOnce`, and resolves to how many it deleted
 * @returns how many were deleted in all
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
