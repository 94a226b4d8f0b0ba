import { expect, spyOn, test } from 'bun:test'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { systemDeps } from '../../common/service/deps.ts'
import { bundledSnapshot } from '../../gateway/rates/snapshot.ts'
import { type Behaviour, fakeRates, startFakeApi } from '../../gateway/testing/fake-rates-api.ts'
import { call, expectBody, graphql } from '../../tools/client.ts'
import { startInProcess } from '../../tools/in-process.ts'
import { describeLong, embeddedParts } from '../testing/parts.ts'
import { newUser } from '../testing/users.ts'

/** How long gateway tries all hosts (`budgetMs` of createRates), and a second for everything else. */
const BOUND_MS = 5000 + 1000
const HOUR_MS = 60 * 60 * 1000

const { date: snapshotDate } = await bundledSnapshot().table('EUR')
const today = new Date().toISOString().slice(0, 10)

type FileName = string | URL | ArrayBufferLike | Uint8Array<ArrayBuffer> | number

const Converted = v.object({
  status: v.literal('succeeded'),
  output: v.object({ source: v.string(), date: v.string(), rate: v.string() }),
})

/** A system with a user, whose external API does what the test says. */
async function startWithApi() {
  const api = startFakeApi()
  api.setDate(today)
  const parts = await embeddedParts()
  let skippedMs = 0
  const deps = { ...systemDeps, monotonicMs: () => performance.now() + skippedMs }
  const system = await startInProcess({ ...parts.environment, RATES_URL: api.url }, deps)
  const { gatewayUrl } = system
  const { token } = await newUser(gatewayUrl)
  const submit = (from: string, key = `${Bun.randomUUIDv7()}`) =>
    call('POST', `${gatewayUrl}/operations`, {
      token,
      body: { type: 'convert', input: { from, to: 'ARS', amount: '0.01' } },
      headers: { Prefer: 'wait=20', 'Idempotency-Key': key },
    })
  return {
    api,
    gatewayUrl,
    token,
    submit,
    /** Converts into ARS. Resolves to the rate, its date and its source. */
    async convert(from: string) {
      return expectBody(await submit(from), 200, Converted).output
    },
    skip(ms: number) {
      skippedMs += ms
    },
    async [Symbol.asyncDispose]() {
      await api.stop()
      await system.close()
      await parts.dispose()
    },
  }
}

describeLong('a conversion', () => {
  test.concurrent('uses the rate of the API or, while that is down, the cached one, each with its date', async () => {
    await using system = await startWithApi()
    expect(await system.convert('USD')).toEqual({ source: 'live', date: today, rate: `${fakeRates.ars}` })
    system.api.behave('down')
    system.skip(2 * HOUR_MS)
    expect(await system.convert('USD')).toEqual({ source: 'cache', date: today, rate: `${fakeRates.ars}` })
    expect(system.api.asked.length).toBeGreaterThan(1)
  }, 30_000)

  test.concurrent.each<Behaviour>(['slow', 'stalled', 'down', 'busy'])(
    'succeeds in time with a rate of the snapshot while the API is %s, and the next one does not wait for the API',
    async (behaviour) => {
      await using system = await startWithApi()
      system.api.behave(behaviour)
      const startedMs = performance.now()
      expect(await system.convert('EUR')).toMatchObject({ source: 'bundled', date: snapshotDate })
      expect(performance.now() - startedMs).toBeLessThan(BOUND_MS)
      const askedSoFar = system.api.asked.length
      expect(askedSoFar).toBeGreaterThan(0)
      expect(await system.convert('GBP')).toMatchObject({ source: 'bundled', date: snapshotDate })
      expect(system.api.asked).toHaveLength(askedSoFar)
    },
    30_000,
  )

  test.concurrent('never uses a rate from a wrong answer of the external API', async () => {
    await using system = await startWithApi()
    const wrongAnswers = {
      AED: 'not-json',
      AUD: 'nan',
      BRL: 'null-rate',
      CAD: 'negative',
      CHF: 'zero',
      CLP: 'wrong-shape',
      CNY: 'other-base',
      DKK: 'redirect',
      JPY: 'not-found',
      SEK: 'huge',
    } as const satisfies Record<string, Behaviour>
    for (const [base, behaviour] of Object.entries(wrongAnswers)) {
      system.api.behave(behaviour)
      const { rates } = await bundledSnapshot().table(base)
      const rate = rates.find(({ code }) => code === 'ARS')?.rate
      expect({ behaviour, ...(await system.convert(base)) }).toEqual({
        behaviour,
        source: 'bundled',
        date: snapshotDate,
        rate: rate ?? '',
      })
    }
    expect(system.api.asked).toHaveLength(Object.keys(wrongAnswers).length)
    // Gateway stopped reading the 50 MB early: what was sent is what the connection buffers.
    expect(system.api.hugeBytes).toBeLessThan(8 * 1024 * 1024)
    system.api.behave('ok')
    expect(await system.convert('NOK')).toMatchObject({ source: 'live', rate: `${fakeRates.ars}` })
  }, 30_000)

  test('is 503 with Retry-After when neither the API nor a fallback has a rate, and uses no key up', async () => {
    await using system = await startWithApi()
    system.api.behave('busy', 'ok')
    // The snapshot is a package's files. The one of gold cannot be read for now.
    const readFile = Bun.file
    const file = spyOn(Bun, 'file').mockImplementation((named: FileName) => {
      const path = named instanceof URL ? fileURLToPath(named) : String(named)
      return readFile(path.endsWith('/xau.json') ? join(path, 'missing') : path)
    })
    try {
      const answer = await system.submit('XAU', 'order-1')
      expect(answer).toMatchObject({
        status: 503,
        body: { code: 'rates-unavailable', type: '/problems/rates-unavailable' },
      })
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
      const mutation =
        'mutation { convert(input: { from: "XAU", to: "ARS", amount: "0.01" }, idempotencyKey: "order-1") { id } }'
      expect((await graphql(system.gatewayUrl, mutation, {}, system.token)).body).toMatchObject({
        errors: [{ extensions: { code: 'rates-unavailable' } }],
      })
    } finally {
      file.mockRestore()
    }
    expect(await system.submit('XAU', 'order-1')).toMatchObject({
      status: 200,
      body: { output: { source: 'bundled' } },
    })
  }, 30_000)
})
