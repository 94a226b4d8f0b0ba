import type { SqliteFile } from '@posta/common/storage/sqlite-file.ts'
import { type Checkpoints, dayOf, type KeptCheckpoint } from './checkpoints.ts'

export const schema = `
  CREATE TABLE IF NOT EXISTS checkpoints (day INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, jwt TEXT NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS checkpoints_time ON checkpoints (at_ms);
`

/** Every statement there is; a test asks SQLite whether each uses an index. */
export const statements = {
  keep: `
    INSERT INTO checkpoints VALUES (?, ?, ?)
    ON CONFLICT (day) DO UPDATE SET at_ms = excluded.at_ms, jwt = excluded.jwt WHERE excluded.at_ms >= at_ms`,
  list: 'SELECT at_ms AS atMs, jwt FROM checkpoints WHERE at_ms < ? ORDER BY at_ms DESC LIMIT ?',
  prune: 'DELETE FROM checkpoints WHERE at_ms < ?',
}

export function embeddedCheckpoints({ all, write }: SqliteFile): Checkpoints {
  return {
    async keep({ atMs, jwt }) {
      await write(statements.keep, dayOf(atMs), atMs, jwt)
    },
    list: ({ limit, beforeMs = Number.MAX_SAFE_INTEGER }) => all<KeptCheckpoint>(statements.list, beforeMs, limit),
    async prune(beforeMs) {
      await write(statements.prune, beforeMs)
    },
  }
}
