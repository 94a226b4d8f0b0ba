import { backoff, pause } from './backoff.ts'
import type { Component } from './component.ts'
import type { Logger } from './log.ts'

interface Task {
  readonly name: string
  /** Ends soon after `signal` aborts, with nothing half done. */
  run(signal: AbortSignal): Promise<void>
}

/**
 * A component that runs tasks, one after the other, when it starts and again and again `everyMs` after their end. A task
 * that fails does not stop the others and is tried again: `everyMs` later, or, with `longestPauseMs`, after pauses that
 * grow up to that. The log says once that it fails, and once that it works again.
 * @example
 * repeat({ name: 'retention', everyMs: 60_000, tasks: [{ name: 'delete old results', run: deleteOld }], log })
 */
export function repeat(options: {
  name: string
  everyMs: number
  longestPauseMs?: number
  tasks: readonly Task[]
  log: Pick<Logger, 'info' | 'warn'>
}): Component {
  const { name, everyMs, longestPauseMs = everyMs, tasks, log } = options
  const closing = new AbortController()
  const { signal } = closing
  const pauses = backoff({ firstMs: everyMs, longestMs: longestPauseMs })
  const failing = new Set<Task>()
  let running: Promise<void> | undefined

  async function attempt(task: Task): Promise<void> {
    const at = { component: name, task: task.name }
    try {
      await task.run(signal)
      if (failing.delete(task)) log.info(at, 'a task works again')
    } catch (error) {
      if (!failing.has(task)) log.warn({ err: error, ...at }, 'a task failed; it is tried again later')
      failing.add(task)
    }
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      for (const task of tasks) if (!signal.aborted) await attempt(task)
      if (failing.size === 0) pauses.reset()
      await (failing.size === 0 ? pause(everyMs, signal) : pauses.pause(signal))
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
 * Deletes in portions, so that others can use the store in between. Ends when nothing is left, or when `signal` aborts.
 * @param deleteSome deletes at most `atOnce` and resolves to how many it deleted
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
