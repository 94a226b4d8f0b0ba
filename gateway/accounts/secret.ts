import { createHmac } from 'node:crypto'
import { eq } from 'drizzle-orm'
import type { Writer } from '../database/commit.ts'
import type { Database } from '../database/open.ts'
import { secrets } from '../database/schema.ts'
import { randomSecret } from './sessions.ts'

/** A keyed hash (HMAC-SHA256) of `parts`, in 43 characters of base64url. All gateways have the same key. */
export type Mac = (...parts: readonly string[]) => string

/** Makes the keyed hash of accounts. Its key is a row of the database: device tokens and counts outlast a restart. */
export async function openMac({ database, writer }: { database: Database; writer: Writer }): Promise<Mac> {
  const name = 'accounts'
  await writer.write([database.insert(secrets).values({ name, value: randomSecret() }).onConflictDoNothing()])
  const [row] = await database.select().from(secrets).where(eq(secrets.name, name))
  if (!row) throw new Error('The secret of accounts was deleted while it was read.')
  return createMac(row.value)
}

export function createMac(key: string): Mac {
  return (...parts) => createHmac('sha256', key).update(JSON.stringify(parts)).digest('base64url')
}
