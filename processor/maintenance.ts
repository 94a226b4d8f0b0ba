import { OPERATION_RETENTION_MS } from '@posta/common/operations/retention.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { deleteAll, repeat } from '@posta/common/service/repeat.ts'
import type { Results } from './results/results.ts'
import type { Runs } from './runs/runs.ts'
import { LONGEST_LIFE_MS } from './runs/runs.ts'

const EVERY_MS = 60 * 60 * 1000

/** Deletes old results and runs, every hour. Every processor does it. */
export function maintenance(options: {
  results: Pick<Results, 'deleteBefore'>
  runs: Pick<Runs, 'deleteBefore'>
  deps: Pick<Deps, 'now'>
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component {
  const { results, runs, deps, log, everyMs = EVERY_MS } = options

  const deleteOld = (what: string, { deleteBefore }: Pick<Results | Runs, 'deleteBefore'>, keepMs: number) => ({
    name: `delete old ${what}`,
    async run(signal: AbortSignal): Promise<void> {
      const before = new Date(deps.now() - keepMs).toISOString()
      const deleted = await deleteAll((atOnce) => deleteBefore(before, atOnce), signal)
      if (deleted > 0) log.info({ deleted }, `old ${what} were deleted`)
    },
  })

  return repeat({
    name: 'maintenance',
    everyMs,
    tasks: [
      deleteOld('results', results, OPERATION_RETENTION_MS),
      // By the time of acceptance. A run outlives its result: a late request must not begin it anew.
      deleteOld('runs', runs, OPERATION_RETENTION_MS + LONGEST_LIFE_MS),
    ],
    log,
  })
}
