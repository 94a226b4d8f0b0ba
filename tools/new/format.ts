import { join } from 'node:path'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'

/**
 * Puts imports in order and breaks long lines, in files of a repository as this one.
 * @param folder the repository's root
 * @throws Error that shows what the formatter says
 */
export function format(folder: string, paths: readonly string[]): void {
  const biome = join(REPOSITORY_ROOT, 'node_modules/.bin/biome')
  // What the linter has to say can wait: it says so in `bun run check`, too.
  const command = [process.execPath, biome, 'check', '--write', '--linter-enabled=false', ...paths]
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: folder, stdout: 'ignore', stderr: 'pipe' })
  if (exitCode !== 0) throw new Error(`The files are written, but could not be formatted: ${stderr.toString()}`)
}
