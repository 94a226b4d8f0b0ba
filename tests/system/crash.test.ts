import { expect, test } from 'bun:test'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { catalog } from '../../common/operations/catalog.ts'
import type { Contract } from '../../common/operations/contract.ts'
import { sample } from '../../common/testing/sample.ts'
import { askUntil, call, expectBody } from '../../tools/client.ts'
import { deadLettersOf } from '../testing/dead-letters.ts'
import { Operation, outcomeOf, submissionOf, timelineOf } from '../testing/operations.ts'
import { describeLong, describeOnParts, type Parts } from '../testing/parts.ts'
import { type ServiceProcess, serviceProcesses } from '../testing/service-processes.ts'
import { tryCall } from '../testing/try-call.ts'
import { newOperator, newUser } from '../testing/users.ts'

const USERS = 3
const PER_USER = 20
const N = 7
/** What the operations of a user may come to, where they count against a limit. */
const { limit }: Contract = catalog[sample.type]
const BOUND = limit ? 100 : Number.POSITIVE_INFINITY
/** 14 x 7 is the most that fits into 100. */
const FITTING = Math.floor(BOUND / N)
const WITHIN_MS = 30_000

describeOnParts(describeLong, (makeParts, kind) => {
  // Each victim has a system of its own. On embedded parts the three run side by side, since they mostly wait.
  const testEach = kind === 'embedded' ? test.concurrent : test
  testEach.each(serviceNames)(
    'kill -9 of %s loses no operation, performs none twice and lets nobody over the limit',
    async (victim) => {
      const parts = await makeParts()
      const services = await serviceProcesses({
        ...parts.environment,
        ...(limit && { [limit.variable]: String(BOUND) }),
      })
      try {
        await Promise.all(Object.values(services).map((service) => service.start()))
        await killWhileInFlight(victim, parts, services)
      } finally {
        const ends = await Promise.all(Object.values(services).map((service) => service.stop('SIGTERM')))
        await parts.dispose()
        // Each drained.
        expect(ends).toEqual([0, 0, 0])
      }
    },
    120_000,
  )
})

/** Kills a service while operations are in flight, starts it again, and checks every acknowledged operation. */
async function killWhileInFlight(
  victim: ServiceName,
  parts: Parts,
  services: Record<ServiceName, ServiceProcess>,
): Promise<void> {
  const { gateway, processor, monitor } = services
  const users = await Promise.all(Array.from({ length: USERS }, () => newUser(gateway.url)))
  let acknowledged = 0
  const half = Promise.withResolvers<void>()

  /** Sends until it is acknowledged, as a client with an idempotency key does. */
  async function submit(token: string, key: string): Promise<Operation> {
    const request = { token, body: submissionOf(N), headers: { 'Idempotency-Key': key } }
    const ask = () => tryCall('POST', `${gateway.url}/operations`, request)
    const operation = expectBody(await askUntil(ask, ({ status }) => status === 202, WITHIN_MS), 202, Operation)
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

  const operator = await newOperator(parts.environment, gateway.url)
  for (const [index, { token }] of users.entries()) {
    const operations = (await submitted[index]) ?? []
    expect(new Set(operations.map(({ id }) => id)).size).toBe(PER_USER)
    const outcomes: Operation[] = []
    for (const { id } of operations) {
      const outcome = await outcomeOf(gateway.url, token, id, WITHIN_MS)
      const result = await call('GET', `${processor.url}/results/${id}`, { token })
      expect(expectBody(result, 200, Operation).status).toBe(outcome.status)
      outcomes.push(outcome)
    }
    // Performed in the order of acceptance: the first ones fit, and each of them counted once.
    const expected = Array.from({ length: PER_USER }, (_, at) => (at < FITTING ? undefined : 'limit-exceeded'))
    expect(outcomes.map(({ error }) => error?.code)).toEqual(expected)

    for (const [at, { id }] of operations.entries())
      expect(await timelineOf(monitor.url, operator, id, 2, WITHIN_MS)).toEqual([
        'posta.operation.requested',
        `posta.operation.${outcomes[at]?.status}`,
      ])
  }
  expect(await call('GET', `${monitor.url}/audit/verify`, { token: operator })).toMatchObject({
    status: 200,
    body: { ok: true },
  })
  expect(await deadLettersOf(monitor.url, operator, 0)).toEqual([])
}
