import { Database } from 'bun:sqlite'
import { MongoClient } from 'mongodb'
import * as v from 'valibot'
import { filePath } from '../../common/service/file-url.ts'
import { DeadLetterRow, EventRow, OperationRow, ResultRow, RunRow } from './snapshot.ts'

/** Reads gateway's database. */
export function readGateway(path: string): { operations: OperationRow[]; outbox: number } {
  using db = new Database(path, { readonly: true })
  const rows = db
    .query<{ input: string; output: string; progress: string }, []>(
      `SELECT id, user_id AS user, type, status, input, coalesce(output, 'null') AS output, error_code AS errorCode,
        coalesce(progress, '{}') AS progress, idempotency_key AS key, created_at AS createdAtMs FROM operations`,
    )
    .all()
  const operations = rows.map(({ input, output, progress, ...row }) => ({
    ...row,
    input: JSON.parse(input),
    output: JSON.parse(output),
    progress: JSON.parse(progress),
  }))
  const outbox = db.query<{ count: number }, []>('SELECT count(*) AS count FROM outbox').get()?.count ?? 0
  return { operations: v.parse(v.array(OperationRow), operations), outbox }
}

/** Reads processor's results, from the file or the database that the URL names. */
export async function readResults(url: string): Promise<ResultRow[]> {
  const rows = url.startsWith('file:')
    ? readRows<{ body: string; facts: string | null }>(url, 'SELECT body, facts FROM results').map(
        ({ body, facts }) => ({
          ...JSON.parse(body),
          facts: JSON.parse(facts ?? 'null'),
        }),
      )
    : await readCollection(url, 'results')
  return v.parse(v.array(ResultRow), rows)
}

/** Reads processor's runs with all that they recorded. */
export async function readRuns(url: string): Promise<RunRow[]> {
  const isFile = url.startsWith('file:')
  const runs = isFile
    ? readRows<{ body: string; state: string }>(url, 'SELECT body, state FROM runs')
    : v
        .parse(v.array(RunDocument), await readCollection(url, 'runs'))
        .map(({ body, head: { state } }) => ({ body, state }))
  const records = isFile
    ? readRows<v.InferOutput<typeof RecordDocument>>(url, 'SELECT run, n, body FROM run_records')
    : v.parse(v.array(RecordDocument), await readCollection(url, 'runRecords'))
  const recordsOf = Map.groupBy(records, ({ run }) => run)
  const rows = runs.map(({ body, state }) => {
    const { id, ...run } = JSON.parse(body)
    const own = (recordsOf.get(id) ?? []).toSorted((a, b) => a.n - b.n)
    return { ...run, id, state, records: own.map(({ n, body }) => ({ ...JSON.parse(body), n })) }
  })
  return v.parse(v.array(RunRow), rows)
}

const RunDocument = v.object({ body: v.string(), head: v.object({ state: v.string() }) })
const RecordDocument = v.object({ run: v.string(), n: v.number(), body: v.string() })

/** Reads what monitor stored, from the file or the database that the URL names. */
export async function readEvents(url: string): Promise<{ events: EventRow[]; deadLetters: DeadLetterRow[] }> {
  const isFile = url.startsWith('file:')
  const events = isFile
    ? readRows(url, 'SELECT *, previous_hash AS previousHash FROM events ORDER BY chain, seq')
    : await readCollection(url, 'events')
  const deadLetters = isFile
    ? readRows<{ summary: string }>(url, 'SELECT summary FROM dead_letters').map(({ summary }) => JSON.parse(summary))
    : await readCollection(url, 'deadLetters')
  return { events: v.parse(v.array(EventRow), events), deadLetters: v.parse(v.array(DeadLetterRow), deadLetters) }
}

function readRows<Row>(url: string, sql: string): Row[] {
  using db = new Database(filePath(url), { readonly: true })
  return db.query<Row, []>(sql).all()
}

async function readCollection(url: string, name: string): Promise<object[]> {
  const client = new MongoClient(url, { serverSelectionTimeoutMS: 5000 })
  try {
    const documents = await client.db().collection<{ _id: string }>(name).find().toArray()
    return documents.map(({ _id, ...rest }) => ({ id: _id, ...rest }))
  } finally {
    await client.close()
  }
}
