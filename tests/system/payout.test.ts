import { afterAll, beforeAll, expect, test } from 'bun:test'
import * as v from 'valibot'
import { askUntil, call, expectBody, graphql } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { type Provider, startProvider } from '../../tools/provider.ts'
import { Operation, outcomeOf, timelineOf } from '../testing/operations.ts'
import { describeLong, describeOnParts, embeddedParts, type Parts } from '../testing/parts.ts'
import { newOperator, newUser, type User } from '../testing/users.ts'

const Progress = v.array(v.object({ step: v.string(), status: v.string() }))
const WithProgress = v.object({ ...Operation.entries, progress: v.optional(Progress, []) })
const Submitted = v.object({ data: v.object({ payout: v.object({ id: v.string() }) }) })
const payout = (amount: string, payee = 'AR-1') => ({
  type: 'payout',
  input: { from: 'USD', to: 'ARS', amount, payee },
})

describeOnParts(describeLong, (makeParts) => {
  let parts: Parts
  let provider: Provider
  let system: System
  let user: User
  let operator: string

  beforeAll(async () => {
    parts = await makeParts()
    provider = await startProvider()
    system = await startInProcess({ ...parts.environment, PAYOUT_URL: provider.url })
    user = await newUser(system.gatewayUrl)
    operator = await newOperator(system.environment, system.gatewayUrl)
  }, 60_000)

  afterAll(async () => {
    await system.close()
    await provider.stop()
    await parts.dispose()
  }, 60_000)

  async function submit(body: object): Promise<string> {
    const { token } = user
    return expectBody(await call('POST', `${system.gatewayUrl}/operations`, { token, body }), 202, Operation).id
  }
  const outcome = (id: string) => outcomeOf(system.gatewayUrl, user.token, id, 30_000)
  const tell = (id: string, what: string, token: string, body?: unknown) =>
    call('POST', `${system.gatewayUrl}/operations/${id}/${what}`, { token, body })

  /** What the provider did for one operation. */
  function ledgerOf(id: string) {
    const { reservations, payments } = provider.ledger()
    return {
      reserved: reservations.filter(({ key }) => key === `${id}/reserve`).map(({ state }) => state),
      paid: payments.filter(({ key }) => key === `${id}/pay`).map(({ status }) => status),
    }
  }

  /** Resolves to the steps of an operation, once the last of them is as expected. */
  async function progressOf(id: string, last: string): Promise<string[]> {
    const ask = () => call('GET', `${system.gatewayUrl}/operations/${id}`, { token: user.token })
    const steps = (body: unknown) => v.parse(WithProgress, body).progress.map(({ step, status }) => `${step} ${status}`)
    return steps((await askUntil(ask, ({ body }) => steps(body).at(-1) === last, 30_000)).body)
  }

  test('a payout is paid once, in steps that gateway and monitor show, whatever the provider does', async () => {
    provider.faults.next('drop-after', { on: 'POST /reservations' })
    provider.faults.next('drop-after', { on: 'POST /payments' })
    provider.faults.next('unavailable', { on: 'GET /payments' })
    const id = await submit(payout('100'))
    const { status, output } = await outcome(id)
    expect(status).toBe('succeeded')
    expect(output).toMatchObject({ currency: 'ARS', source: 'bundled' })
    expect(output?.reference).toBe(provider.ledger().payments.find(({ key }) => key === `${id}/pay`)?.id)
    expect(ledgerOf(id)).toEqual({ reserved: ['paid'], paid: ['settled'] })
    expect(await progressOf(id, 'settled done')).toEqual(['reserve done', 'pay done', 'settled done'])
    expect(await timelineOf(system.monitorUrl, user.token, id, 5)).toEqual([
      'posta.operation.requested',
      'posta.operation.progressed',
      'posta.operation.progressed',
      'posta.operation.progressed',
      'posta.operation.succeeded',
    ])
  }, 60_000)

  test('above 1000 USD it waits for an operator, and its owner cannot approve it', async () => {
    const id = await submit(payout('1000.01'))
    expect(await progressOf(id, 'approve waiting')).toEqual(['reserve done', 'approve waiting'])
    expect(ledgerOf(id)).toEqual({ reserved: ['open'], paid: [] })
    expect((await tell(id, 'signals/approve', user.token, { approved: true })).status).toBe(403)
    expect((await tell(id, 'signals/approve', operator, { approved: true })).status).toBe(202)
    expect((await outcome(id)).status).toBe('succeeded')
    expect(ledgerOf(id)).toEqual({ reserved: ['paid'], paid: ['settled'] })
  }, 60_000)

  test('one that an operator refuses fails, with nothing paid and nothing reserved', async () => {
    const id = await submit(payout('1000.02'))
    await tell(id, 'signals/approve', operator, { approved: false })
    expect(await outcome(id)).toMatchObject({ status: 'failed', error: { code: 'not-approved' } })
    expect(ledgerOf(id)).toEqual({ reserved: ['released'], paid: [] })
  }, 60_000)

  test('one that is cancelled while it waits is undone, and counts nothing', async () => {
    const id = await submit(payout('5000'))
    await progressOf(id, 'approve waiting')
    expect((await tell(id, 'cancel', user.token)).status).toBe(202)
    expect(await outcome(id)).toMatchObject({ status: 'failed', error: { code: 'cancelled' } })
    expect(ledgerOf(id)).toEqual({ reserved: ['released'], paid: [] })
    // The limit is 10,000 USD a day, of which those above used 1,100.01.
    const next = await submit(payout('8899.99', 'refused-1'))
    expect(await outcome(next)).toMatchObject({ status: 'failed', error: { code: 'payee-refused' } })
    expect(await outcome(await submit(payout('8900')))).toMatchObject({ error: { code: 'limit-exceeded' } })
  }, 60_000)

  test('over GraphQL it is the mutation and the field payout', async () => {
    const mutation = 'mutation ($input: PayoutInput!) { payout(input: $input) { id } }'
    const input = payout('1', 'bounced-1').input
    const answer = await graphql(system.gatewayUrl, mutation, { input }, user.token)
    const { id } = expectBody(answer, 200, Submitted).data.payout
    expect(await outcome(id)).toMatchObject({ status: 'failed', error: { code: 'payee-refused' } })
    expect(ledgerOf(id)).toEqual({ reserved: ['released'], paid: ['refused'] })
    const query = 'query ($id: ID!) { operation(id: $id) { error { code } payout { reference } } }'
    expect((await graphql(system.gatewayUrl, query, { id }, user.token)).body).toEqual({
      data: { operation: { error: { code: 'payee-refused' }, payout: null } },
    })
  }, 60_000)
})

test('without PAYOUT_URL a payout is not offered, and the answer says so', async () => {
  const parts = await embeddedParts()
  const { gatewayUrl, close } = await startInProcess(parts.environment)
  try {
    const { token } = await newUser(gatewayUrl)
    const answer = await call('POST', `${gatewayUrl}/operations`, { token, body: payout('1') })
    expect(answer.status).toBe(422)
    expect(JSON.stringify(answer.body)).toContain('PAYOUT_URL')
  } finally {
    await close()
    await parts.dispose()
  }
}, 60_000)
