import { describe, expect, test } from 'bun:test'
import * as v from 'valibot'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { type Answer, call, eventually, expectBody } from '../../tools/client.ts'
import { type ServiceProcess, serviceProcesses } from './processes.ts'
import { addOperator, describeLong, embeddedParts, newUser, noRealParts, type Parts, realParts } from './system.ts'

describeLong('on this machine alone', () => {
  describeCrashes('embedded parts', embeddedParts, test.concurrent)
})
describe.skipIf(noRealParts !== undefined)('with a broker and a MongoDB-wire server', () => {
  describeCrashes('real parts', realParts, test)
})

const Operation = v.object({
  id: v.string(),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  error: v.optional(v.object({ code: v.string() })),
})
type Operation = v.InferOutput<typeof Operation>

const USERS = 3
const PER_USER = 20
const AMOUNT_USD = 7
const LIMIT_USD = 100
/** 14 x 7 is the most that fits into 100. */
const FITTING = Math.floor(LIMIT_USD / AMOUNT_USD)

/** Each victim has a system of its own; on embedded parts the three run side by side, since most of it is waiting. */
function describeCrashes(name: string, makeParts: () => Promise<Parts>, run: Pick<typeof test, 'each'>): void {
  describe(`kill -9 on ${name}`, () => {
    run.each(serviceNames)(
      'of %s loses no operation, does none twice and lets nobody over the limit',
      async (victim) => {
        const parts = await makeParts()
        const services = await serviceProcesses({ ...parts.environment, DAILY_LIMIT_USD: String(LIMIT_USD) })
        try {
          await Promise.all(Object.values(services).map((service) => service.start()))
          await killWhileInFlight(victim, parts, services)
        } finally {
          const codes = await Promise.all(Object.values(services).map((service) => service.stop('SIGTERM')))
          await parts.dispose()
          // Each drained and left in order.
          expect(codes).toEqual([0, 0, 0])
        }
      },
      120_000,
    )
  })
}

/** Kills a real process while operations are in flight, starts it again, and counts what came of what was acknowledged. */
async function killWhileInFlight(
  victim: ServiceName,
  parts: Parts,
  services: Record<ServiceName, ServiceProcess>,
): Promise<void> {
  const urls = { gateway: services.gateway.url, processor: services.processor.url, monitor: services.monitor.url }
  const users = await Promise.all(Array.from({ length: USERS }, () => newUser(urls.gateway)))
  let acknowledged = 0
  const half = Promise.withResolvers<void>()

  /** Sends until it is acknowledged, as a client with an idempotency key does. */
  async function submit(token: string, key: string): Promise<Operation> {
    const body = { type: 'convert', input: { from: 'USD', to: 'ARS', amount: String(AMOUNT_USD) } }
    const ask = () =>
      call('POST', `${urls.gateway}/operations`, { token, body, headers: { 'Idempotency-Key': key } }).catch(gone)
    const operation = expectBody(await eventually(ask, ({ status }) => status === 202, 30_000), 202, Operation)
    acknowledged += 1
    if (acknowledged === (USERS * PER_USER) / 2) half.resolve()
    return operation
  }

  async function submitAll(token: string): Promise<Operation[]> {
    const operations: Operation[] = []
    for (let index = 0; index < PER_USER; index++) operations.push(await submit(token, `order-${index}`))
    return operations
  }

  const submitted = users.map(({ token }) => submitAll(token))
  await half.promise
  expect(await services[victim].stop('SIGKILL')).toBe('SIGKILL')
  await services[victim].start()

  const operator = await addOperator(parts, urls.gateway)
  for (const [index, { token }] of users.entries()) {
    const operations = (await submitted[index]) ?? []
    expect(new Set(operations.map(({ id }) => id)).size).toBe(PER_USER)
    const outcomes: Operation[] = []
    for (const { id } of operations) {
      const read = () => call('GET', `${urls.gateway}/operations/${id}`, { token }).catch(gone)
      const done = await eventually(
        read,
        (answer) => {
          // What was acknowledged is there.
          expect(answer.status).toBe(200)
          return expectBody(answer, 200, Operation).status !== 'pending'
        },
        30_000,
      )
      const outcome = expectBody(done, 200, Operation)
      const result = await call('GET', `${urls.processor}/results/${id}`, { token })
      expect(expectBody(result, 200, Operation).status).toBe(outcome.status)
      outcomes.push(outcome)
    }
    // In the order in which they were accepted: the first ones fit, and each of them counted once.
    const expected = Array.from({ length: PER_USER }, (_, at) => (at < FITTING ? undefined : 'limit-exceeded'))
    expect(outcomes.map(({ error }) => error?.code)).toEqual(expected)

    for (const { id } of operations) {
      const read = () => call('GET', `${urls.monitor}/operations/${id}/timeline`, { token: operator })
      const timeline = await eventually(read, ({ status, body }) => status === 200 && v.is(Whole, body), 30_000)
      expect(timeline.body).toMatchObject({
        items: [
          { type: 'posta.operation.requested' },
          { type: expect.stringMatching(/^posta\.operation\.(succeeded|failed)$/) },
        ],
      })
    }
  }
  expect(await call('GET', `${urls.monitor}/audit/verify`, { token: operator })).toMatchObject({
    status: 200,
    body: { ok: true },
  })
  expect(await call('GET', `${urls.monitor}/dead-letters`, { token: operator })).toMatchObject({
    status: 200,
    body: { items: [] },
  })
}

const Whole = v.object({ items: v.pipe(v.array(v.unknown()), v.length(2)) })

/** What a client sees of a service that has just been killed. */
const gone = (): Answer => ({ status: 0, headers: new Headers(), body: undefined })
