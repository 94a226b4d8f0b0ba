import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../common/service/config.ts'
import { temporaryFolder } from '../common/testing/temporary-folder.ts'
import { readLedger } from './provider/ledger.ts'
import { type Provider, startProvider } from './provider.ts'

const order = { amount: '147250.00', currency: 'ARS', payee: 'AR-1' }
const WithId = v.object({ id: v.string() })

function at(url: string) {
  async function call(method: string, path: string, options: { key?: string; body?: unknown } = {}) {
    const { key, body } = options
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { 'Content-Type': 'application/json', ...(key !== undefined && { 'Idempotency-Key': key }) },
      body: body === undefined ? null : JSON.stringify(body),
    })
    const text = await response.text()
    const answer: unknown = text === '' ? undefined : JSON.parse(text)
    return { status: response.status, body: answer, headers: response.headers }
  }
  const post = (path: string, key: string | undefined, body: unknown) =>
    call('POST', path, { ...(key !== undefined && { key }), body })
  return {
    call,
    reserve: (key?: string, more: object = {}) => post('/reservations', key, { ...order, ...more }),
    pay: (reservation: string, key?: string) => post('/payments', key, { reservation }),
    look: (payment: string) => call('GET', `/payments/${payment}`),
    release: (reservation: string) => call('DELETE', `/reservations/${reservation}`),
  }
}
const idOf = (answer: { body: unknown }) => v.parse(WithId, answer.body).id

describe('the provider', () => {
  let provider: Provider
  let client: ReturnType<typeof at>
  beforeEach(async () => {
    provider = await startProvider()
    client = at(provider.url)
  })
  afterEach(() => provider.stop())

  test('reserves, pays and settles, and its ledger says so', async () => {
    const reserved = await client.reserve('a')
    expect(reserved.status).toBe(201)
    const reservation = idOf(reserved)
    const paid = await client.pay(reservation, 'b')
    expect(paid).toMatchObject({ status: 201, body: { status: 'pending' } })
    const payment = idOf(paid)
    expect(await client.look(payment)).toMatchObject({ status: 200, body: { id: payment, status: 'settled' } })
    const expected = {
      reservations: [{ id: reservation, key: 'a', ...order, state: 'paid' as const }],
      payments: [{ id: payment, key: 'b', reservation, status: 'settled' as const }],
    }
    expect(provider.ledger()).toEqual(expected)
    expect((await client.call('GET', '/ledger')).body).toEqual(expected)
  })

  test('answers a key that it knows as the first time, and does nothing more', async () => {
    const reserved = await client.reserve('a')
    expect((await client.reserve('a')).body).toEqual(reserved.body)
    const paid = await client.pay(idOf(reserved), 'b')
    await client.look(idOf(paid))
    expect(await client.pay(idOf(reserved), 'b')).toMatchObject({ status: 201, body: paid.body })
    const refused = await client.reserve('c', { payee: 'refused-1' })
    expect(refused).toMatchObject({ status: 422, body: { code: 'payee-refused' } })
    expect(await client.reserve('c', { payee: 'refused-1' })).toMatchObject({ status: 422, body: refused.body })
    expect(provider.ledger().reservations).toHaveLength(1)
    expect(provider.ledger().payments).toHaveLength(1)
  })

  test('does one thing for many requests with one key at once', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => client.reserve('a')))
    expect(new Set(answers.map(idOf)).size).toBe(1)
    expect(provider.ledger().reservations).toHaveLength(1)
  })

  test('refuses a key that came before with another body or for another thing, and a POST without a key', async () => {
    const reservation = idOf(await client.reserve('a'))
    const reused = { status: 422, body: { code: 'idempotency-key-reused' } }
    expect(await client.reserve('a', { amount: '1.00' })).toMatchObject(reused)
    expect(await client.pay(reservation, 'a')).toMatchObject(reused)
    expect(await client.reserve()).toMatchObject({ status: 400, body: { code: 'idempotency-key-missing' } })
    expect(provider.ledger()).toMatchObject({ reservations: [{ state: 'open' }], payments: [] })
  })

  test('releases a reservation again and again, and pays no released one', async () => {
    const reservation = idOf(await client.reserve('a'))
    expect((await client.release(reservation)).status).toBe(204)
    expect((await client.release(reservation)).status).toBe(204)
    expect(await client.pay(reservation, 'b')).toMatchObject({ status: 409, body: { code: 'reservation-released' } })
    expect(provider.ledger()).toMatchObject({ reservations: [{ state: 'released' }], payments: [] })
  })

  test('pays a reservation once, whatever the key, and releases no paid one', async () => {
    const reservation = idOf(await client.reserve('a'))
    await client.pay(reservation, 'b')
    expect(await client.pay(reservation, 'c')).toMatchObject({ status: 409, body: { code: 'reservation-paid' } })
    expect((await client.release(reservation)).status).toBe(409)
    expect(provider.ledger()).toMatchObject({ reservations: [{ state: 'paid' }], payments: [{ key: 'b' }] })
  })

  test('refuses a payment that bounces once it is looked at; its reservation can then be released', async () => {
    const reservation = idOf(await client.reserve('a', { payee: 'bounced-1' }))
    const payment = idOf(await client.pay(reservation, 'b'))
    expect((await client.release(reservation)).status).toBe(409)
    expect((await client.look(payment)).body).toEqual({ id: payment, status: 'refused' })
    expect((await client.release(reservation)).status).toBe(204)
  })

  test.each([
    ['an amount that is no decimal', 400, 'POST', '/reservations', { ...order, amount: '1e3' }],
    ['an empty payee', 400, 'POST', '/reservations', { ...order, payee: '' }],
    ['a list', 400, 'POST', '/reservations', []],
    ['a body of more than 16 KiB', 413, 'POST', '/reservations', { ...order, payee: 'x'.repeat(17_000) }],
    ['to pay an unknown reservation', 404, 'POST', '/payments', { reservation: 'unknown' }],
    ['to release an unknown reservation', 404, 'DELETE', '/reservations/unknown', undefined],
    ['to look at an unknown payment', 404, 'GET', '/payments/unknown', undefined],
    ['what it does not have', 404, 'POST', '/elsewhere', {}],
  ])('refuses %s with %i, and does nothing', async (_, status, method, path, body) => {
    expect((await client.call(method, path, { key: 'a', body })).status).toBe(status)
    expect(provider.ledger()).toEqual({ reservations: [], payments: [] })
  })

  test.each([
    ['busy', 429],
    ['failing', 500],
    ['unavailable', 503],
  ] as const)('%s: it answers %i, does nothing, and the next request is as ever', async (fault, status) => {
    provider.faults.next(fault)
    const answer = await client.reserve('a')
    expect(answer.status).toBe(status)
    expect(answer.headers.has('retry-after')).toBe(status === 429)
    expect(provider.ledger().reservations).toEqual([])
    expect((await client.reserve('a')).status).toBe(201)
  })

  test.each([
    ['drop-before', 0],
    ['drop-after', 1],
  ] as const)('%s: the connection breaks off, and %i reservation is made', async (fault, made) => {
    provider.faults.next(fault)
    await expect(client.reserve('a')).rejects.toThrow()
    expect(provider.ledger().reservations).toHaveLength(made)
    expect((await client.reserve('a')).status).toBe(201)
    expect(provider.ledger().reservations).toHaveLength(1)
  })

  test('a fault for one route leaves the others as they are', async () => {
    provider.faults.next('failing', { on: 'POST /payments' })
    const reservation = idOf(await client.reserve('a'))
    expect((await client.pay(reservation, 'b')).status).toBe(500)
    expect((await client.pay(reservation, 'b')).status).toBe(201)
  })

  test('a payment that settles later is pending for as many looks as was said', async () => {
    provider.faults.next('settle-later', { on: 'POST /payments', looks: 2 })
    const payment = idOf(await client.pay(idOf(await client.reserve('a')), 'b'))
    const seen = [await client.look(payment), await client.look(payment), await client.look(payment)]
    expect(seen.map(({ body }) => body)).toEqual([
      { id: payment, status: 'pending' },
      { id: payment, status: 'pending' },
      { id: payment, status: 'settled' },
    ])
  })

  test('while it is down it does nothing; then it is as before', async () => {
    provider.faults.downForMs(Number.POSITIVE_INFINITY)
    await expect(client.reserve('a')).rejects.toThrow()
    provider.faults.downForMs(0)
    expect((await client.reserve('a')).status).toBe(201)
    expect(provider.ledger().reservations).toHaveLength(1)
  })
})

test('with a seed requests fail at random, and whoever asks again with the same keys pays once', async () => {
  const provider = await startProvider({ faults: '7' })
  const { reserve, pay } = at(provider.url)
  let failed = 0
  async function persist(ask: () => Promise<{ status: number; body: unknown }>): Promise<string> {
    for (;;) {
      // A provider that never answers, or is slow, is given up.
      const answer = await Promise.race([ask().catch(() => undefined), Bun.sleep(200)])
      if (answer?.status === 201) return idOf(answer)
      failed += 1
    }
  }
  try {
    const payments = await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        const reservation = await persist(() => reserve(`reserve-${n}`))
        return persist(() => pay(reservation, `pay-${n}`))
      }),
    )
    expect(failed).toBeGreaterThan(0)
    expect(new Set(payments).size).toBe(30)
    const { reservations, payments: made } = provider.ledger()
    expect([reservations.length, made.length]).toEqual([30, 30])
  } finally {
    await provider.stop()
  }
})

describe('the program', () => {
  const start = async (words: readonly string[]) => {
    const child = Bun.spawn([process.execPath, 'tools/provider.ts', ...words], {
      cwd: REPOSITORY_ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const { value } = await child.stdout.getReader().read()
    return { child, url: new TextDecoder().decode(value).trim() }
  }

  test('keeps its ledger over a kill, and another process reads it meanwhile', async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, 'ledger.db')
    const words = ['--port', '0', '--ledger', file]
    const first = await start(words)
    const reservation = idOf(await at(first.url).reserve('a'))
    const paid = await at(first.url).pay(reservation, 'b')
    const before = readLedger(file)
    expect(before).toMatchObject({ reservations: [{ key: 'a', state: 'paid' }], payments: [{ key: 'b' }] })
    first.child.kill('SIGKILL')
    await first.child.exited

    const second = await start(words)
    try {
      expect((await at(second.url).pay(reservation, 'b')).body).toEqual(paid.body)
      expect(readLedger(file)).toEqual(before)
    } finally {
      second.child.kill('SIGTERM')
      expect(await second.child.exited).toBe(0)
    }
  })

  test.each(['--port x', '--port 70000', '--unknown'])('refuses %s with code 1 and a reason', async (words) => {
    const { child } = await start(words.split(' '))
    expect(await child.exited).toBe(1)
    expect(await new Response(child.stderr).text()).not.toBe('')
  })
})
