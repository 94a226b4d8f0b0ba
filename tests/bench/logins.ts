import { availableParallelism } from 'node:os'
import { createClient } from '@libsql/client'
import * as v from 'valibot'
import { startGateway } from './gateway.ts'
import { startLoadGenerator } from './load.ts'
import { type Figure, inTurn, timeMs } from './measure.ts'

/** Enough that a hash always waits for a core, and few enough that none is refused. */
const USERS = 16
const LOGINS_PER_USER = 6
const LOGINS = USERS * LOGINS_PER_USER
const ROUNDS = 4
const PASSWORD = 'a long sentence that only I know'

/** Logins over HTTP, each with its right password, over verifications of the same hash and nothing else. */
export async function measureLogins(): Promise<readonly Figure[]> {
  const gateway = await startGateway()
  const load = startLoadGenerator()
  const connections = Array.from({ length: USERS }, (_, index) => ({
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: `user-${index}@example.com`, password: PASSWORD }),
  }))
  try {
    await load.send({ url: `${gateway.url}/auth/register`, expectedStatus: 201, requestsPerConnection: 1, connections })
    const hash = await storedHash(gateway.databaseUrl)
    const { ratio, ours, theirs } = await inTurn(
      ROUNDS,
      async () => {
        const elapsedMs = await load.send({
          url: `${gateway.url}/auth/login`,
          expectedStatus: 200,
          requestsPerConnection: LOGINS_PER_USER,
          connections,
        })
        return (LOGINS / elapsedMs) * 1000
      },
      async () => (LOGINS / (await timeMs(() => verify(hash, LOGINS)))) * 1000,
    )
    return [
      {
        name: 'logins / argon2id verifications alone',
        ratio,
        aim: { atLeast: 0.9 },
        of: { loginsPerS: ours, verificationsPerS: theirs },
      },
    ]
  } finally {
    await load.stop()
    await gateway.stop()
  }
}

/** Of gateway's own parameters. */
async function storedHash(databaseUrl: string): Promise<string> {
  const client = createClient({ url: databaseUrl })
  const { rows } = await client.execute('SELECT password_hash FROM users LIMIT 1')
  client.close()
  return v.parse(v.string(), rows[0]?.password_hash)
}

/** As many at once as gateway has. */
async function verify(hash: string, count: number): Promise<void> {
  let left = count
  const worker = async () => {
    while (left-- > 0) if (!(await Bun.password.verify(PASSWORD, hash))) throw new Error('The password is right.')
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}
