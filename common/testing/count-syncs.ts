import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from './temporary-folder.ts'

/** Whether `countSyncs` can run here. */
export const hasStrace = Bun.which('strace') !== null

/**
 * For tests: runs a program, and counts the syncs of SQLite's write-ahead logs after each call of its `mark(name)` and before
 * the next one. A killed process loses nothing that is in the kernel's page cache, so only the system calls show what was synced.
 * @param program a module's text; `folder` is a temporary folder for its files
 * @example
 * expect(await countSyncs(`… mark('write'); await file.write(sql); mark('end')`)).toEqual({ write: 1 })
 */
export async function countSyncs(program: string): Promise<Record<string, number>> {
  using folder = temporaryFolder()
  const trace = join(folder.path, 'trace')
  const script = `
    import { writeSync } from 'node:fs'
    const folder = ${JSON.stringify(folder.path)}
    const mark = (name) => void writeSync(1, 'mark ' + name)
    ${program}`
  const traced = ['strace', '-f', '-y', '-e', 'trace=fsync,fdatasync,write', '-o', trace, '--']
  const child = Bun.spawn([...traced, process.execPath, '-e', script], { stdout: 'ignore', stderr: 'inherit' })
  if ((await child.exited) !== 0) throw new Error('The program failed.')
  const counts = new Map<string, number>()
  let marked = ''
  for (const line of readFileSync(trace, 'utf8').split('\n')) {
    marked = /write\(1<.*"mark ([^"]*)"/.exec(line)?.[1] ?? marked
    const isSync = /sync\(\d+<[^>]*-wal>/.test(line)
    counts.set(marked, (counts.get(marked) ?? 0) + Number(isSync))
  }
  // Before the first mark the file is made, and after the last one it is closed.
  counts.delete('')
  counts.delete(marked)
  return Object.fromEntries(counts)
}
