import { join } from 'node:path'
import { createClient, type InValue } from '@libsql/client'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { openDatabase } from '../../gateway/database/open.ts'
import { MAX_PENDING_PER_USER } from '../../gateway/operations/submit.ts'
import { submissionOf } from '../testing/operations.ts'
import { startLoadGenerator } from './load-generator.ts'
import { compare, type Figure, perSecond, timeMs } from './measure.ts'
import { startGateway } from './start-gateway.ts'

const CONNECTIONS = 64
const ROUNDS = 7
/** Each user submits as many operations as may be pending, since no processor runs. */
const SUBMISSIONS = CONNECTIONS * MAX_PENDING_PER_USER
const SYNCED_ALONE = 2000

/**
 * Gateway alone under 64 clients: submissions that it accepts (over HTTP, authenticated, checked, durable, and on their
 * way to the broker), over the same rows written one synced transaction each, by the same client library into the same
 * kind of file.
 */
export async function measureSubmissions(): Promise<readonly Figure[]> {
  const gateway = await startGateway()
  const load = startLoadGenerator()
  const url = `file:${join(temporaryFolder().path, 'gateway.db')}`
  await (await openDatabase({ url })).close()
  const [stored, alone] = [createClient({ url: gateway.databaseUrl }), createClient({ url, concurrency: 1 })]
  let commits = 0
  let accepted = 0

  async function acceptedPerS(): Promise<number> {
    const connections = await Promise.all(Array.from({ length: CONNECTIONS }, newConnection))
    const before = await gateway.commits()
    const elapsedMs = await load.send({
      url: `${gateway.url}/operations`,
      expectedStatus: 202,
      requestsPerConnection: MAX_PENDING_PER_USER,
      connections,
    })
    commits += (await gateway.commits()) - before
    accepted += SUBMISSIONS
    return perSecond(SUBMISSIONS, elapsedMs)
  }

  /** Each has a user of its own. */
  async function newConnection() {
    const headers = { authorization: `Bearer ${await gateway.token()}`, 'content-type': 'application/json' }
    return { headers, body: JSON.stringify(submissionOf(100)) }
  }

  /** Writes the rows that gateway stored last. */
  async function syncedAlonePerS(): Promise<number> {
    const { columns, rows } = await stored.execute(`SELECT * FROM operations ORDER BY id DESC LIMIT ${SYNCED_ALONE}`)
    const insert = `INSERT INTO operations VALUES (${columns.map(() => '?').join(', ')})`
    const elapsedMs = await timeMs(async () => {
      for (const row of rows.toReversed())
        await alone.batch(
          [
            { sql: insert, args: columns.map((column): InValue => row[column] ?? null) },
            { sql: 'INSERT INTO outbox (operation_id) VALUES (?)', args: [row.id ?? null] },
          ],
          'write',
        )
    })
    return perSecond(rows.length, elapsedMs)
  }

  try {
    const figure = { name: 'submissions accepted / synced one by one', aim: { atLeast: 2 } }
    return [
      await compare(figure, ROUNDS, [
        ['acceptedPerS', acceptedPerS],
        ['syncedAlonePerS', syncedAlonePerS],
      ]),
      {
        name: 'commits / submission accepted',
        ratio: commits / accepted,
        aim: { atMost: 1 / 8 },
        of: { commitsCount: commits, acceptedCount: accepted },
      },
    ]
  } finally {
    stored.close()
    alone.close()
    await load.stop()
    await gateway.stop()
  }
}
