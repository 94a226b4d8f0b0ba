import { Database } from 'bun:sqlite'
import { MongoClient } from 'mongodb'
import * as v from 'valibot'
import { DeadLetterRow, EventRow, OperationRow, ResultRow } from './snapshot.ts'

/** Gateway's database, by SQL. */
export function readGateway(path: string): { operations: OperationRow[]; outbox: number } {
  return withDatabase(path, (db) => {
    const rows = db
      .query<{ input: string; output: string | null }, []>(
        `SELECT id, user_id AS user, type, status, input, output, error_code AS errorCode, idempotency_key AS key,
          created_at AS createdAtMs FROM operations`,
      )
      .all()
    const operations = rows.map(({ input, output, ...row }) => ({
      ...row,
      input: JSON.parse(input),
      output: output === null ? null : JSON.parse(output),
    }))
    const outbox = db.query<{ count: number }, []>('SELECT count(*) AS count FROM outbox').get()?.count ?? 0
    return { operations: v.parse(v.array(OperationRow), operations), outbox }
  })
}

/** Processor's results, from the file or the database that the URL names. */
export async function readResults(url: string): Promise<ResultRow[]> {
  const found = url.startsWith('file:')
    ? withDatabase(url.slice('file:'.length), (db) =>
        db
          .query<{ body: string; rates: string }, []>('SELECT body, rates FROM results')
          .all()
          .map(({ body, rates }) => ({ ...JSON.parse(body), rates: JSON.parse(rates) })),
      )
    : await readCollection(url, 'results')
  return v.parse(v.array(ResultRow), found)
}

export async function readEvents(url: string): Promise<{ events: EventRow[]; deadLetters: DeadLetterRow[] }> {
  const found = url.startsWith('file:')
    ? withDatabase(url.slice('file:'.length), (db) => ({
        events: db
          .query(
            'SELECT id, type, operation, chain, seq, previous_hash AS previousHash, hash, text FROM events ORDER BY chain, seq',
          )
          .all(),
        deadLetters: db
          .query<{ summary: string }, []>('SELECT summary FROM dead_letters')
          .all()
          .map(({ summary }) => JSON.parse(summary)),
      }))
    : { events: await readCollection(url, 'events'), deadLetters: await readCollection(url, 'deadLetters') }
  return {
    events: v.parse(v.array(EventRow), found.events),
    deadLetters: v.parse(v.array(DeadLetterRow), found.deadLetters),
  }
}

function withDatabase<Result>(path: string, read: (db: Database) => Result): Result {
  const db = new Database(path, { readonly: true })
  try {
    return read(db)
  } finally {
    db.close()
  }
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
