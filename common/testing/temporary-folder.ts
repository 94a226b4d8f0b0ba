import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NAME } from '../name.ts'

/**
 * For tests: a new folder. It is removed, with all that is in it, by `remove` or at the end of its scope.
 * @example
 * using folder = temporaryFolder()
 * const broker = openEmbedded({ path: join(folder.path, 'broker.db') })
 * @param parent the system's folder for temporary files by default
 */
export function temporaryFolder(parent = tmpdir()): Disposable & { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(parent, `${NAME}-test-`))
  const remove = () => rmSync(path, { recursive: true, force: true, maxRetries: 5 })
  return { path, remove, [Symbol.dispose]: remove }
}
