import { OPERATION_RETENTION_MS } from '@posta/common/operations/retention.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { deleteAll, repeat } from '@posta/common/service/repeat.ts'
import type { Results } from './results/results.ts'

const EVERY_MS = 60 * 60 * 1000

/** Deletes old results, every hour. Every processor does it. */
export function maintenance(options: {
  results: Pick<Results, 'deleteBefore'>
  deps: Pick<Deps, 'now'>
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component {
  const { results, deps, log, everyMs = EVERY_MS } = options

  async function deleteOld(signal: AbortSignal): Promise<void> {
    const before = new Date(deps.now() - OPERATION_RETENTION_MS).toISOString()
    const deleted = await deleteAll((atOnce) => results.deleteBefore(before, atOnce), signal)
    if (deleted > 0) log.info({ deleted }, 'old results were deleted')
  }

  return repeat({ name: 'maintenance', everyMs, tasks: [{ name: 'delete old results', run: deleteOld }], log })
}
