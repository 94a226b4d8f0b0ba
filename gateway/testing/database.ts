import { join } from 'node:path'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { type OpenDatabase, openDatabase } from '../database/open.ts'

/** For tests: a database of its own, gone when it is closed. */
export async function openTemporary(): Promise<OpenDatabase & { readonly url: string }> {
  const folder = temporaryFolder()
  const url = `file:${join(folder.path, 'gateway.db')}`
  const opened = await openDatabase({ url })
  return {
    ...opened,
    url,
    async close() {
      await opened.close()
      folder.remove()
    },
  }
}
