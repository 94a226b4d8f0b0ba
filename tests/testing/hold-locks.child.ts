// A process that keeps a transaction open on each SQLite file that its arguments name, until its standard input ends.
import { Database } from 'bun:sqlite'

const files = process.argv.slice(2).map((path) => new Database(path))
for (const file of files) {
  file.run('PRAGMA busy_timeout = 5000')
  file.run('BEGIN IMMEDIATE')
}
console.log('locked')
await Bun.stdin.text()
for (const file of files) file.run('ROLLBACK')
