import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * The paths of the files that belong to a repository: those that git tracks, or, where there is no git, all that
 * `.gitignore` at its root does not ignore.
 */
export function repositoryFiles(root: string): string[] {
  const tracked = trackedFiles(root)
  return (tracked.length > 0 ? tracked : notIgnored(root)).toSorted()
}

function trackedFiles(root: string): string[] {
  try {
    const listed = Bun.spawnSync(['git', 'ls-files', '-z'], { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] })
    // A file that was deleted and not committed is tracked still.
    return listed.stdout
      .toString()
      .split('\0')
      .filter((path) => path !== '' && existsSync(join(root, path)))
  } catch {
    // Git is not installed.
    return []
  }
}

/** Reads patterns as `.gitignore` has them here: names with `*`, `/` at the end for folders, `!` for exceptions. */
function notIgnored(root: string): string[] {
  const patterns = readFileSync(join(root, '.gitignore'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({ kept: line.startsWith('!'), glob: new Bun.Glob(line.replace(/^!/, '')) }))
  const isIgnored = (name: string, isFolder: boolean) => {
    const last = patterns.findLast(({ glob }) => glob.match(name) || (isFolder && glob.match(`${name}/`)))
    return last !== undefined && !last.kept
  }
  const filesIn = (folder: string): string[] =>
    readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
      const path = join(folder, entry.name)
      if (entry.name === '.git' || isIgnored(entry.name, entry.isDirectory())) return []
      return entry.isDirectory() ? filesIn(path) : entry.isFile() ? [path] : []
    })
  return filesIn('')
}
