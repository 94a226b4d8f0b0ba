import { systemDeps } from '@posta/common/service/deps.ts'
import { sql } from 'drizzle-orm'
import { randomSecret, startSession } from '../accounts/sessions.ts'
import type { OpenDatabase } from '../database/open.ts'
import { users } from '../database/schema.ts'

/** For tests: stores a new user and their first session, without a password to hash. */
export async function storeSession({ database, writer }: Pick<OpenDatabase, 'database' | 'writer'>) {
  const [id, sessionId, token] = [systemDeps.newId(), systemDeps.newId(), randomSecret()]
  const nowMs = systemDeps.now()
  await writer.write([
    database.insert(users).values({ id, email: `${id}@example.com`, passwordHash: '', createdAt: nowMs }),
    startSession({ token, sessionId, userId: id, nowMs }, sql`TRUE`),
  ])
  return { user: { id, role: 'user' as const }, session: sessionId, refreshToken: token }
}
