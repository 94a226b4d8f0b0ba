import { availableParallelism } from 'node:os'
import { createClient } from '@libsql/client'
import * as v from 'valibot'
import { PASSWORD } from '../testing/users.ts'
import { startLoadGenerator } from './load-generator.ts'
import { compare, type Figure, perSecond, timeMs } from './measure.ts'
import { startGateway } from './start-gateway.ts'

/** Enough that a hash always waits for a core, and few enough that none is refused. */
const USERS = 16
const LOGINS_PER_USER = 6
const LOGINS = USERS * LOGINS_PER_USER
const ROUNDS = 4

/** Logins over HTTP, each with the right password, over verifications of the same hash alone. */
export async function measureLogins(): Promise<readonly Figure[]> {
  const gateway = await startGateway()
  const load = startLoadGenerator()
  const connections = Array.from({ length: USERS }, (_, index) => ({
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: `user-${index}@example.com`, password: PASSWORD }),
  }))
  const send = (path: string, expectedStatus: number, requestsPerConnection: number) =>
    load.send({ url: `${gateway.url}/auth/${path}`, expectedStatus, requestsPerConnection, connections })
  try {
    await send('register', 201, 1)
    const hash = await storedHash(gateway.databaseUrl)
    const figure = { name: 'logins / argon2id verifications alone', aim: { atLeast: 0.9 } }
    return [
      await compare(figure, ROUNDS, [
        ['loginsPerS', async () => perSecond(LOGINS, await send('login', 200, LOGINS_PER_USER))],
        ['verificationsPerS', async () => perSecond(LOGINS, await timeMs(() => verify(hash, LOGINS)))],
      ]),
    ]
  } finally {
    await load.stop()
    await gateway.stop()
  }
}

/** A hash with gateway's own parameters. */
async function storedHash(databaseUrl: string): Promise<string> {
  const client = createClient({ url: databaseUrl })
  const { rows } = await client.execute('SELECT password_hash FROM users LIMIT 1')
  client.close()
  return v.parse(v.string(), rows[0]?.password_hash)
}

/** As many at once as gateway does. */
async function verify(hash: string, count: number): Promise<void> {
  let left = count
  const worker = async () => {
    while (left-- > 0) if (!(await Bun.password.verify(PASSWORD, hash))) throw new Error('The password is right.')
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}
