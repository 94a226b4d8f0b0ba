import { Database } from 'bun:sqlite'
import * as v from 'valibot'

const Text = v.pipe(v.string(), v.minLength(1), v.maxLength(255))
const Order = v.object({
  amount: v.pipe(v.string(), v.regex(/^\d{1,40}(?:\.\d{1,8})?$/)),
  currency: Text,
  payee: Text,
})
const PaymentOrder = v.object({ reservation: Text })
const Key = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,255}$/))

/** What the provider did. `key` is the Idempotency-Key that asked for it. */
export interface Ledger {
  readonly reservations: readonly Reservation[]
  readonly payments: readonly Payment[]
}
interface Reservation {
  readonly id: string
  readonly key: string
  readonly amount: string
  readonly currency: string
  readonly payee: string
  /** `paid` from when a payment is accepted. A payment that is refused makes it `open` again. */
  readonly state: 'open' | 'released' | 'paid'
}
interface Payment {
  readonly id: string
  readonly key: string
  readonly reservation: string
  readonly status: 'pending' | 'settled' | 'refused'
}

const TABLES = `
  CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, amount TEXT NOT NULL, currency TEXT NOT NULL, payee TEXT NOT NULL,
    state TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS payments (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, reservation TEXT NOT NULL, status TEXT NOT NULL,
    looks INTEGER NOT NULL, settlesAtMs INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
  ) STRICT;`

function show(database: Database): Ledger {
  const reservations = 'SELECT id, key, amount, currency, payee, state FROM reservations ORDER BY rowid'
  const payments = 'SELECT id, key, reservation, status FROM payments ORDER BY rowid'
  return database.transaction(() => ({
    reservations: database.query<Reservation, []>(reservations).all(),
    payments: database.query<Payment, []>(payments).all(),
  }))()
}

/** The ledger in a file, also while a provider of another process writes it. */
export function readLedger(file: string): Ledger {
  using database = new Database(file, { readonly: true })
  database.run('PRAGMA busy_timeout = 5000')
  return show(database)
}

export interface Request {
  readonly method: string
  readonly path: string
  readonly key: string | undefined
  readonly body: string
}

export interface Answer {
  readonly status: number
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export const refusal = (status: number, code: string): Answer => ({ status, body: { code } })

/** When a payment settles: it is pending for so many looks at it, and for so long. */
export interface Settling {
  readonly looks: number
  readonly ms: number
}

/**
 * Does what requests ask for, and keeps it in a file, or in memory without one. What was answered is durable. A key that it
 * knows is answered as the first time.
 */
export function openLedger(file = ':memory:') {
  const database = new Database(file, { create: true, strict: true })
  database.run('PRAGMA busy_timeout = 5000')
  database.run('PRAGMA journal_mode = WAL')
  database.run('PRAGMA synchronous = FULL')
  database.run(TABLES)

  function post({ path, key: given, body }: Request, settling: Settling): Answer {
    const key = v.safeParse(Key, given)
    if (!key.success) return refusal(400, 'idempotency-key-missing')
    const order = v.safeParse(v.pipe(v.string(), v.parseJson(), path === '/reservations' ? Order : PaymentOrder), body)
    if (!order.success) return refusal(400, 'malformed-request')
    const request = `${path} ${JSON.stringify(order.output)}`
    const known = database
      .query<{ request: string; status: number; body: string }, [string]>('SELECT * FROM answers WHERE key = ?')
      .get(key.output)
    if (known && known.request !== request) return refusal(422, 'idempotency-key-reused')
    if (known) return { status: known.status, body: JSON.parse(known.body) }
    const answer =
      'payee' in order.output ? reserve(key.output, order.output) : pay(key.output, order.output.reservation, settling)
    database
      .query('INSERT INTO answers VALUES (?, ?, ?, ?)')
      .run(key.output, request, answer.status, JSON.stringify(answer.body))
    return answer
  }

  function reserve(key: string, { amount, currency, payee }: v.InferOutput<typeof Order>): Answer {
    if (payee.startsWith('refused')) return refusal(422, 'payee-refused')
    const id = Bun.randomUUIDv7()
    database.query("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, 'open')").run(id, key, amount, currency, payee)
    return { status: 201, body: { id } }
  }

  function pay(key: string, reservation: string, { looks, ms }: Settling): Answer {
    const state = stateOf(reservation)
    if (state === undefined) return refusal(404, 'unknown-reservation')
    if (state !== 'open') return refusal(409, `reservation-${state}`)
    const id = Bun.randomUUIDv7()
    database
      .query("INSERT INTO payments VALUES (?, ?, ?, 'pending', ?, ?)")
      .run(id, key, reservation, looks, Date.now() + ms)
    setState(reservation, 'paid')
    return { status: 201, body: { id, status: 'pending' } }
  }

  function release(reservation: string): Answer {
    const state = stateOf(reservation)
    if (state === undefined) return refusal(404, 'unknown-reservation')
    if (state === 'paid') return refusal(409, 'reservation-paid')
    setState(reservation, 'released')
    return { status: 204 }
  }

  /** A payment settles when it is looked at. */
  function look(id: string): Answer {
    const payment = database
      .query<Payment & { looks: number; settlesAtMs: number; payee: string }, [string]>(
        'SELECT payments.*, payee FROM payments JOIN reservations ON reservations.id = reservation WHERE payments.id = ?',
      )
      .get(id)
    if (!payment) return refusal(404, 'unknown-payment')
    if (payment.status !== 'pending') return { status: 200, body: { id, status: payment.status } }
    database.query('UPDATE payments SET looks = looks - 1 WHERE id = ?').run(id)
    if (payment.looks > 0 || Date.now() < payment.settlesAtMs) return { status: 200, body: { id, status: 'pending' } }
    const status = payment.payee.startsWith('bounced') ? 'refused' : 'settled'
    database.query('UPDATE payments SET status = ? WHERE id = ?').run(status, id)
    if (status === 'refused') setState(payment.reservation, 'open')
    return { status: 200, body: { id, status } }
  }

  const stateOf = (id: string) =>
    database.query<Pick<Reservation, 'state'>, [string]>('SELECT state FROM reservations WHERE id = ?').get(id)?.state
  const setState = (id: string, state: Reservation['state']) =>
    database.query('UPDATE reservations SET state = ? WHERE id = ?').run(state, id)

  function perform(request: Request, settling: Settling): Answer {
    const { method, path } = request
    if (method === 'POST' && (path === '/reservations' || path === '/payments')) return post(request, settling)
    const [, collection, id] = /^\/(reservations|payments)\/([^/]+)$/.exec(path) ?? []
    if (method === 'DELETE' && collection === 'reservations' && id !== undefined) return release(id)
    if (method === 'GET' && collection === 'payments' && id !== undefined) return look(id)
    return refusal(404, 'not-found')
  }

  return {
    /** @param settling of the payment that it makes; at the first look by default */
    act: (request: Request, settling: Settling = { looks: 0, ms: 0 }): Answer =>
      database.transaction(() => perform(request, settling)).immediate(),
    show: () => show(database),
    close: () => database.close(),
  }
}
