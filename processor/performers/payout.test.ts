import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Catalog } from '@posta/common/operations/catalog.ts'
import { sample } from '@posta/common/testing/sample.ts'
import fc from 'fast-check'
import { type Provider, startProvider } from '../../tools/provider.ts'
import type { RunRecord } from '../runs/runs.ts'
import { signalInput } from '../runs/runs.ts'
import { NOON, NOON_MS } from '../testing/requests.ts'
import { input, newRun, runToEnd } from '../testing/run-to-end.ts'
import { convert } from './convert.ts'
import { payout } from './payout.ts'
import type { Decidable } from './performer.ts'

const usd = (amount: string, payee = 'AR-1') => ({ from: 'USD', to: 'ARS', amount, payee })

function asked(amount: string, more: Partial<Decidable<Catalog['payout']>> = {}): Decidable<Catalog['payout']> {
  return {
    id: 'op',
    user: 'ana',
    createdAt: NOON,
    input: usd(amount),
    facts: { base: 'USD', date: '2026-11-23', source: 'live', rates: [{ code: 'ARS', rate: '1472.5' }] },
    limit: { used: 0, bound: 10_000 * 1e8 },
    settings: { PAYOUT_URL: 'http://127.0.0.1:1', APPROVAL_ABOVE_USD: '1000' },
    ...more,
  }
}

describe('the decision', () => {
  test('says what is paid, in the minor unit of the currency, and at which rate', () => {
    expect(payout.decide(asked('100.50'))).toEqual({
      goOn: { amount: '147986.25', rate: '1472.5', needsApproval: false },
      counts: 100.5 * 1e8,
    })
  })

  test('counts and refuses exactly what a conversion does', () => {
    const digits = (min: number, max: number) =>
      fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: min, maxLength: max })
    const positive = fc
      .tuple(digits(1, 12), digits(1, 8))
      .map(([whole, part]) => `${BigInt(whole)}.${part}`)
      .filter((text) => /[1-9]/.test(text))
    fc.assert(
      fc.property(positive, positive, fc.integer({ min: 0, max: 1e12 }), (amount, rate, used) => {
        const order = asked(amount, {
          input: { ...usd(amount), from: 'EUR' },
          facts: {
            base: 'EUR',
            date: '2026-11-23',
            source: 'live',
            rates: [
              { code: 'ARS', rate: '1.5' },
              { code: 'USD', rate },
            ],
          },
          limit: { used, bound: 1e12 },
        })
        const paid = payout.decide(order)
        const converted = convert.decide({ ...order, settings: {} })
        if ('failure' in converted) {
          const message = converted.failure.message.replace('This conversion', 'This payout')
          expect(paid).toEqual({ failure: { code: 'limit-exceeded', message } })
        } else {
          const { amount, rate } = converted.output
          expect(paid).toMatchObject({ goOn: { amount, rate }, counts: converted.counts })
        }
      }),
    )
  })

  test.each([
    ['1000', '1000', false],
    ['1000.00000001', '1000', true],
    ['0.00000001', '0', true],
    ['1.5', '1.49999999', true],
  ])('%s USD need an approval above %s: %p', (amount, above, needsApproval) => {
    const settings = { PAYOUT_URL: undefined, APPROVAL_ABOVE_USD: above }
    expect(payout.decide(asked(amount, { settings }))).toMatchObject({ goOn: { needsApproval } })
  })
})

describe('the run', () => {
  let provider: Provider
  beforeEach(async () => {
    provider = await startProvider()
  })
  afterEach(() => provider.stop())

  const runOf = (payee: string, needsApproval = false) =>
    newRun({
      type: 'payout',
      input: usd('100', payee),
      facts: sample.facts,
      decided: { amount: '147250.00', rate: '1472.5', needsApproval },
    })

  type Options = NonNullable<Parameters<typeof runToEnd>[1]>
  const pay = (options: Options & { payee?: string; needsApproval?: boolean } = {}) =>
    runToEnd(
      { run: payout.run },
      {
        run: runOf(options.payee ?? 'AR-1', options.needsApproval),
        settings: { PAYOUT_URL: provider.url, APPROVAL_ABOVE_USD: '1000' },
        ...options,
      },
    )

  const kinds = (records: readonly RunRecord[]) =>
    records.map((record) => ('step' in record ? `${record.kind} ${record.step}` : record.kind))
  const approve = (approved: boolean) => input(signalInput('approve'), { by: 'operator', payload: { approved } })
  /** One reservation, paid by one payment, each asked for with the key of its step. */
  function expectPaidOnce() {
    const { reservations, payments } = provider.ledger()
    expect(reservations).toEqual([
      expect.objectContaining({ key: 'op/reserve', amount: '147250.00', currency: 'ARS', state: 'paid' }),
    ])
    expect(payments).toEqual([expect.objectContaining({ key: 'op/pay', status: 'settled' })])
  }
  const states = () => provider.ledger().reservations.map(({ state }) => state)

  test('a provider that is busy is asked again no sooner than it says', async () => {
    let refusedMs = 0
    const busyOnce = async (...asked: Parameters<typeof fetch>) => {
      if (refusedMs > 0) return fetch(...asked)
      refusedMs = 300_000
      return new Response(null, { status: 429, headers: { 'Retry-After': '300' } })
    }
    const { preconnect } = fetch
    const { records } = await pay({ deps: { fetch: Object.assign(busyOnce, { preconnect }) } })
    expectPaidOnce()
    expect(records.find(({ kind }) => kind === 'done')?.atMs).toBe(NOON_MS + refusedMs)
  })

  test('reserves, pays, waits until the payment is settled, and answers with its id', async () => {
    const { outcome, records } = await pay()
    expectPaidOnce()
    expect(outcome).toEqual({
      output: {
        amount: '147250.00',
        currency: 'ARS',
        rate: '1472.5',
        date: sample.facts.date,
        source: sample.facts.source,
        reference: provider.ledger().payments[0]?.id ?? '',
      },
    })
    expect(kinds(records)).toEqual([
      'started reserve',
      'done reserve',
      'started pay',
      'done pay',
      'done settled',
      'ended',
    ])
  })

  const routes = ['POST /reservations', 'POST /payments', 'GET /payments'] as const
  const faults = [
    'busy',
    'failing',
    'unavailable',
    'drop-before',
    'drop-after',
    'silent-after',
    'twice',
    'slow',
  ] as const
  test.each(routes.flatMap((on) => faults.map((fault) => [fault, on] as const)))(
    'pays once where the provider is %s at %s',
    async (fault, on) => {
      provider.faults.next(fault, { on, times: 3, ms: 20 })
      // In place of 20 s.
      const impatient: typeof fetch = Object.assign(
        (request: string | URL | Request, init?: RequestInit) =>
          fetch(request, { ...init, signal: AbortSignal.timeout(200) }),
        { preconnect: fetch.preconnect },
      )
      const { outcome } = await pay({ deps: { fetch: impatient } })
      expect(outcome).toHaveProperty('output.amount', '147250.00')
      expectPaidOnce()
    },
  )

  test('outlasts a provider that is away for an hour', async () => {
    provider.faults.next('drop-before', { on: 'POST /payments', times: 12 })
    const { outcome, records } = await pay()
    expect(outcome).toHaveProperty('output')
    expectPaidOnce()
    const [first, last] = [records[0], records.at(-1)]
    expect((last?.atMs ?? 0) - (first?.atMs ?? 0)).toBeGreaterThan(60 * 60 * 1000)
  })

  test('looks at a payment again until it is settled, less and less often', async () => {
    provider.faults.next('settle-later', { on: 'POST /payments', looks: 30 })
    const { outcome, records } = await pay()
    expect(outcome).toHaveProperty('output')
    expectPaidOnce()
    const waitedMs = (records.at(-1)?.atMs ?? 0) - (records[0]?.atMs ?? 0)
    expect(waitedMs).toBeGreaterThan(20 * 60_000)
    expect(waitedMs).toBeLessThanOrEqual(30 * 60_000)
    expect(kinds(records).filter((kind) => kind.endsWith(' settled'))).toEqual(['done settled'])
  })

  test('pays once wherever it crashes', async () => {
    for (let crashAt = 0; crashAt < 6; crashAt++) {
      const id = `op${crashAt}`
      const records: RunRecord[] = []
      const run = { ...runOf('AR-1'), id }
      const dying = pay({
        run,
        beforeAppend(record) {
          if (record.n === crashAt) throw new Error('Crashed.')
          records.push(record)
        },
      })
      await expect(dying).rejects.toThrow('Crashed.')
      expect(records).toHaveLength(crashAt)
      expect((await pay({ run, records })).outcome).toHaveProperty('output')
      const { reservations, payments } = provider.ledger()
      expect(reservations.filter(({ key }) => key === `${id}/reserve`)).toHaveLength(1)
      expect(payments.filter(({ key }) => key === `${id}/pay`)).toHaveLength(1)
    }
    expect(states()).toEqual(Array(6).fill('paid'))
  })

  test('fails where the provider refuses the payee, with nothing reserved', async () => {
    const { outcome } = await pay({ payee: 'refused-1' })
    expect(outcome).toHaveProperty('failure.code', 'payee-refused')
    expect(provider.ledger()).toEqual({ reservations: [], payments: [] })
  })

  test('fails where the payment is refused later, and releases what it reserved', async () => {
    const { outcome } = await pay({ payee: 'bounced-1' })
    expect(outcome).toHaveProperty('failure.code', 'payee-refused')
    expect(states()).toEqual(['released'])
    expect(provider.ledger().payments).toEqual([expect.objectContaining({ status: 'refused' })])
  })

  test('waits for an approval with the amount reserved and nothing paid', async () => {
    const { stop } = await pay({ needsApproval: true })
    expect(stop).toMatchObject({ kind: 'later', step: 'approve', forSignal: true })
    expect(states()).toEqual(['open'])
    expect(provider.ledger().payments).toEqual([])
  })

  test('pays what was approved', async () => {
    expect((await pay({ needsApproval: true, inputs: [approve(true)] })).outcome).toHaveProperty('output')
    expectPaidOnce()
  })

  test('fails where an operator refuses, and releases what it reserved', async () => {
    const { outcome } = await pay({ needsApproval: true, inputs: [approve(false)] })
    expect(outcome).toHaveProperty('failure.code', 'not-approved')
    expect(states()).toEqual(['released'])
    expect(provider.ledger().payments).toEqual([])
  })

  test('an approval that nobody asked for changes nothing', async () => {
    expect((await pay({ inputs: [approve(false)] })).outcome).toHaveProperty('output')
    expectPaidOnce()
  })

  test.each(['busy', 'failing', 'drop-before', 'drop-after', 'twice'] as const)(
    'releases what it reserved where it is cancelled and the provider is %s',
    async (fault) => {
      const { records } = await pay({ needsApproval: true })
      provider.faults.next(fault, { on: 'DELETE /reservations', times: 3 })
      const { outcome } = await pay({ needsApproval: true, records, inputs: [input('cancel')] })
      expect(outcome).toHaveProperty('failure.code', 'cancelled')
      expect(states()).toEqual(['released'])
      expect(provider.ledger().payments).toEqual([])
    },
  )

  test('a reservation that was made before a crash, and not recorded, is released by a cancel', async () => {
    const started: RunRecord[] = []
    const dying = pay({
      beforeAppend(record) {
        if (record.n === 1) throw new Error('Crashed.')
        started.push(record)
      },
    })
    await expect(dying).rejects.toThrow('Crashed.')
    expect(states()).toEqual(['open'])
    const { outcome } = await pay({ records: started, inputs: [input('cancel')] })
    expect(outcome).toHaveProperty('failure.code', 'cancelled')
    expect(states()).toEqual(['released'])
  })

  test('a cancel that comes once the payment has begun changes nothing', async () => {
    const begun: RunRecord[] = []
    const dying = pay({
      beforeAppend(record) {
        if (record.kind === 'done' && record.step === 'pay') throw new Error('Crashed.')
        begun.push(record)
      },
    })
    await expect(dying).rejects.toThrow('Crashed.')
    expect((await pay({ records: begun, inputs: [input('cancel')] })).outcome).toHaveProperty('output')
    expectPaidOnce()
  })

  test('is stuck with a reason where PAYOUT_URL is not set', async () => {
    const { stop } = await pay({ settings: { PAYOUT_URL: undefined, APPROVAL_ABOVE_USD: '1000' } })
    expect(stop).toMatchObject({
      kind: 'stuck',
      reason:
        'reserve failed 20 times: PAYOUT_URL is not set. Set it to the URL of the payout provider and start processor again.',
    })
  })

  test.each([
    ['something else', () => Response.json({ ok: true }, { status: 201 }), /cannot be used/],
    ['an endless id', () => Response.json({ id: 'x'.repeat(300) }, { status: 201 }), /cannot be used/],
    ['no JSON', () => new Response('<html>', { status: 201 }), /the answer is not JSON/],
    ['another refusal', () => Response.json({ code: 'idempotency-key-reused' }, { status: 422 }), /status 422/],
    ['a redirect', () => Response.redirect('http://127.0.0.1:1/', 302), /status 302/],
    ['2 MiB', () => new Response(new Uint8Array(2 * 1024 * 1024), { status: 201 }), /more than 1048576 bytes/],
  ])('is stuck with a reason where the provider answers %s', async (_, answer, reason) => {
    const strange = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: answer })
    try {
      const { stop } = await pay({ settings: { PAYOUT_URL: strange.url.origin, APPROVAL_ABOVE_USD: '1000' } })
      const said = stop.kind === 'stuck' ? stop.reason : ''
      expect(said).toMatch(reason)
      // It may hold a secret.
      expect(said).not.toContain(strange.url.origin)
    } finally {
      await strange.stop(true)
    }
  })
})
