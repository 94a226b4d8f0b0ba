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
