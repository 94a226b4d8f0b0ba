import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type OpenDatabase, openDatabase } from '../database/open.ts'

/** For tests: a database of its own, gone when it is closed. */
export async function openTemporary(): Promise<OpenDatabase & { readonly url: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-'))
  const url = `file:${join(folder, 'gateway.db')}`
  const opened = await openDatabase({ url })
  return {
    ...opened,
    url,
    async close() {
      await opened.close()
      rmSync(folder, { recursive: true })
    },
  }
}

/** For tests: resolves once `condition` holds; fails after 10 s. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  const startedMs = performance.now()
  while (!(await condition())) {
    if (performance.now() - startedMs > 10_000) throw new Error('What was waited for did not happen within 10 s.')
    await Bun.sleep(2)
  }
}
