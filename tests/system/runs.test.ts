import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import * as v from 'valibot'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { type Answer, askUntil, call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { type Provider, startProvider } from '../../tools/provider.ts'
import type { Order, Point } from '../chaos/orders.ts'
import { deadLettersOf } from '../testing/dead-letters.ts'
import { Operation, outcomeOf, timelineOf } from '../testing/operations.ts'
import { describeLong, describeOnParts, type MakeParts, type Parts } from '../testing/parts.ts'
import { type ServiceProcess, serviceProcesses } from '../testing/service-processes.ts'
import { addOperator, logIn, newOperator, newUser, type User } from '../testing/users.ts'

const WITHIN_MS = 60_000

/** Above what an operator must approve. */
const LARGE = '1200'
const payout = (amount: string) => ({ type: 'payout', input: { from: 'USD', to: 'ARS', amount, payee: 'AR-1' } })

const WithProgress = v.object({
  ...Operation.entries,
  progress: v.optional(v.array(v.object({ step: v.string(), status: v.string() })), []),
})
const stepsOf = (body: unknown) => v.parse(WithProgress, body).progress.map(({ step, status }) => `${step} ${status}`)

/** A payout as the tests see it, whatever the services run on. */
function client(urls: { readonly gatewayUrl: string; readonly monitorUrl: string }, provider: () => Provider) {
  const { gatewayUrl, monitorUrl } = urls
  const pathOf = (id: string) => `${gatewayUrl}/operations/${id}`
  return {
    async submit(token: string, amount: string): Promise<string> {
      const answer = await call('POST', `${gatewayUrl}/operations`, { token, body: payout(amount) })
      return expectBody(answer, 202, Operation).id
    },
    get: (token: string, id: string) => call('GET', pathOf(id), { token }),
    cancel: (token: string, id: string) => call('POST', `${pathOf(id)}/cancel`, { token }),
    signal: (token: string, id: string, name: string, body: unknown) =>
      call('POST', `${pathOf(id)}/signals/${name}`, { token, body }),
    outcome: (token: string, id: string) => outcomeOf(gatewayUrl, token, id, WITHIN_MS),
    /** Resolves when the operation has made this progress. */
    async untilStep(token: string, id: string, step: string): Promise<void> {
      await askUntil(
        () => this.get(token, id),
        ({ body }) => stepsOf(body).includes(step),
        WITHIN_MS,
      )
    },
    /** Expects all of its progress at gateway, in order, and all of its events at monitor. */
    async expectTold(token: string, id: string, steps: readonly string[], others: readonly string[]): Promise<void> {
      expect(stepsOf((await this.get(token, id)).body)).toEqual([...steps])
      const expected = [...steps.map(() => 'progressed'), 'requested', ...others].map(
        (name) => `posta.operation.${name}`,
      )
      const timeline = await timelineOf(monitorUrl, token, id, expected.length, WITHIN_MS)
      expect(timeline.toSorted()).toEqual(expected.toSorted())
    },
    /** What the provider did for an operation. The keys of its steps are the operation's. */
    ledgerOf(id: string) {
      const { reservations, payments } = provider().ledger()
      return {
        reservations: reservations.filter(({ key }) => key.startsWith(`${id}/`)).map(({ key, state }) => [key, state]),
        payments: payments
          .filter(({ key }) => key.startsWith(`${id}/`))
          .map(({ id: reference, key, status }) => ({ reference, key, status })),
      }
    },
  }
}

describeOnParts(describeLong, describeKills)

/** Processor is a process that kills itself at a point of a payout's way, as kill -9 does. */
function describeKills(makeParts: MakeParts): void {
  describe('a payout whose processor is killed', () => {
    let parts: Parts
    let provider: Provider
    let services: Record<ServiceName, ServiceProcess>
    let payouts: ReturnType<typeof client>
    let operator: string

    beforeAll(async () => {
      parts = await makeParts()
      provider = await startProvider()
      const child = join(import.meta.dir, '../chaos/service.child.ts')
      services = await serviceProcesses(
        { ...parts.environment, PAYOUT_URL: provider.url },
        { program: (service) => (service === 'processor' ? [child, service] : undefined) },
      )
      await Promise.all(serviceNames.map((name) => services[name].start()))
      const { gateway, monitor } = services
      payouts = client({ gatewayUrl: gateway.url, monitorUrl: monitor.url }, () => provider)
      operator = await newOperator(parts.environment, gateway.url)
    }, 90_000)

    afterAll(async () => {
      const ends = await Promise.all(serviceNames.map((name) => services[name].stop('SIGTERM')))
      await provider.stop()
      await parts.dispose()
      expect(ends).toEqual([0, 0, 0])
    }, 90_000)

    /** Resolves when processor has killed itself at the point, in what `act` begins, to what that resolved to. */
    async function killedAt<Value>(point: Point, act: () => Promise<Value>): Promise<Value> {
      const { processor } = services
      processor.send({ trouble: { killAt: point } } satisfies Order)
      const value = await act()
      expect(await processor.ended()).toBe('SIGKILL')
      return value
    }
    const restart = () => services.processor.start()
    const approve = (id: string) => payouts.signal(operator, id, 'approve', { approved: true })

    async function expectPaidOnce(token: string, id: string): Promise<void> {
      const { status, output } = await payouts.outcome(token, id)
      expect(status).toBe('succeeded')
      const reference = String(output?.reference)
      expect(payouts.ledgerOf(id)).toEqual({
        reservations: [[`${id}/reserve`, 'paid']],
        payments: [{ reference, key: `${id}/pay`, status: 'settled' }],
      })
      const steps = ['reserve done', 'approve waiting', 'approve done', 'pay done', 'settled done']
      await payouts.expectTold(token, id, steps, ['signalled', 'succeeded'])
    }

    async function expectNothingPaid(token: string, id: string): Promise<void> {
      expect(await payouts.outcome(token, id)).toMatchObject({ status: 'failed', error: { code: 'cancelled' } })
      expect(payouts.ledgerOf(id)).toEqual({ reservations: [[`${id}/reserve`, 'released']], payments: [] })
    }

    test.each<[string, Point]>([
      ['before a step', 'before-call'],
      ['after the effect of a step and before its record', 'after-call'],
      ['after a record and before its progress is told', 'before-progress'],
    ])(
      '%s, once before the approval and once after it, is paid once and told completely',
      async (_, point) => {
        const { token } = await newUser(services.gateway.url)
        const id = await killedAt(point, () => payouts.submit(token, LARGE))
        await restart()
        await payouts.untilStep(token, id, 'approve waiting')
        await killedAt(point, () => approve(id))
        await restart()
        await expectPaidOnce(token, id)
      },
      3 * WITHIN_MS,
    )

    test(
      'after its last step and before its result is paid once and told completely',
      async () => {
        const { token } = await newUser(services.gateway.url)
        const id = await payouts.submit(token, LARGE)
        await payouts.untilStep(token, id, 'approve waiting')
        await killedAt('before-result', () => approve(id))
        await restart()
        await expectPaidOnce(token, id)
      },
      2 * WITHIN_MS,
    )

    test(
      'while it is undone releases what it reserved, and pays nothing',
      async () => {
        const { token } = await newUser(services.gateway.url)
        const id = await payouts.submit(token, LARGE)
        await payouts.untilStep(token, id, 'approve waiting')
        await killedAt('during-undo', () => payouts.cancel(token, id))
        await restart()
        await expectNothingPaid(token, id)
        const steps = ['reserve done', 'approve waiting', 'reserve undone']
        await payouts.expectTold(token, id, steps, ['cancel-requested', 'failed'])
      },
      2 * WITHIN_MS,
    )

    test(
      'after it reserved and before that was recorded, when it was cancelled already, leaks no reservation',
      async () => {
        const { token } = await newUser(services.gateway.url)
        // Long enough for the cancel to come to processor while it reserves.
        provider.faults.next('slow', { on: 'POST /reservations', ms: 3000 })
        const id = await killedAt('after-call', async () => {
          const id = await payouts.submit(token, LARGE)
          await eventually(() => payouts.ledgerOf(id).reservations.length === 1, WITHIN_MS)
          expect((await payouts.cancel(token, id)).status).toBe(202)
          return id
        })
        expect(payouts.ledgerOf(id).reservations).toEqual([[`${id}/reserve`, 'open']])
        await restart()
        await expectNothingPaid(token, id)
        await payouts.expectTold(token, id, ['reserve done', 'reserve undone'], ['cancel-requested', 'failed'])
      },
      2 * WITHIN_MS,
    )

    test('leaves no dead letter, and the audit chain verifies', async () => {
      const { url } = services.monitor
      expect(await deadLettersOf(url, operator, 0)).toEqual([])
      const verified = await call('GET', `${url}/audit/verify`, { token: operator })
      expect(verified).toMatchObject({ status: 200, body: { ok: true } })
    })
  })
}

describeOnParts(describeLong, describeAnswers)

/** What clients are answered about a payout under way, and what they see of it. */
function describeAnswers(makeParts: MakeParts): void {
  describe('a payout', () => {
    let parts: Parts
    let provider: Provider
    let system: System
    let payouts: ReturnType<typeof client>
    let user: User
    let operator: string

    beforeAll(async () => {
      parts = await makeParts()
      provider = await startProvider({ ledgerFile: join(parts.dataDir, 'ledger.db') })
      system = await startInProcess({ ...parts.environment, PAYOUT_URL: provider.url, DAILY_LIMIT_USD: '1000000' })
      payouts = client(system, () => provider)
      user = await newUser(system.gatewayUrl)
      operator = await newOperator(system.environment, system.gatewayUrl)
    }, 90_000)

    afterAll(async () => {
      await system.close()
      await provider.stop()
      await parts.dispose()
    }, 90_000)

    async function submitLarge(token = user.token): Promise<string> {
      const id = await payouts.submit(token, LARGE)
      await payouts.untilStep(token, id, 'approve waiting')
      return id
    }
    const shown = ({ status, body }: Answer) => [
      status,
      v.is(v.object({ code: v.string() }), body) ? body.code : undefined,
    ]

    test(
      'is shown step by step by its stream, which ends with its outcome',
      async () => {
        const { token } = user
        const id = await submitLarge()
        const response = await fetch(`${system.gatewayUrl}/operations/${id}/stream`, {
          headers: { authorization: `Bearer ${token}`, accept: 'text/event-stream' },
        })
        await payouts.signal(operator, id, 'approve', { approved: true })
        const events = [...(await response.text()).matchAll(/^data: ?(\{.*\})$/gm)].map(([, data = '']) =>
          JSON.parse(data),
        )
        const all = ['reserve done', 'approve waiting', 'approve done', 'pay done', 'settled done']
        expect(stepsOf(events[0])).toEqual(all.slice(0, 2))
        for (const event of events) expect(stepsOf(event)).toEqual(all.slice(0, stepsOf(event).length))
        const lengths = events.map((event) => stepsOf(event).length)
        expect(lengths).toEqual(lengths.toSorted((a, b) => a - b))
        expect(events.slice(0, -1).every(({ status }) => status === 'pending')).toBe(true)
        expect(v.parse(WithProgress, events.at(-1)).status).toBe('succeeded')
        expect(stepsOf(events.at(-1))).toEqual(all)
      },
      2 * WITHIN_MS,
    )

    test(
      'takes a cancel of its owner again while it is pending, and refuses it after the end',
      async () => {
        const { token } = user
        const id = await submitLarge()
        expect(shown(await payouts.cancel((await newUser(system.gatewayUrl)).token, id))).toEqual([404, 'not-found'])
        provider.faults.next('slow', { on: 'DELETE /reservations', ms: 300 })
        expect((await payouts.cancel(token, id)).status).toBe(202)
        expect((await payouts.cancel(token, id)).status).toBe(202)
        expect(await payouts.outcome(token, id)).toMatchObject({ error: { code: 'cancelled' } })
        expect(shown(await payouts.cancel(token, id))).toEqual([409, 'already-terminal'])
        await payouts.expectTold(
          token,
          id,
          ['reserve done', 'approve waiting', 'reserve undone'],
          ['cancel-requested', 'failed'],
        )
      },
      2 * WITHIN_MS,
    )

    test(
      'takes an answer of an operator once, and none that it did not ask for, of a wrong shape or after the end',
      async () => {
        const { token } = user
        const id = await submitLarge()
        const answer = (body: unknown, name = 'approve', by = operator) => payouts.signal(by, id, name, body)
        expect(shown(await answer({ approved: true }, 'hurry'))).toEqual([404, 'unknown-signal'])
        expect(shown(await answer({ approved: true }, 'constructor'))).toEqual([404, 'unknown-signal'])
        for (const wrong of [{}, { approved: 'yes' }, { approved: true, amount: '1' }])
          expect(shown(await answer(wrong))).toEqual([422, 'invalid-input'])
        expect(shown(await answer({ approved: true }, 'approve', token))).toEqual([403, 'forbidden'])
        const stranger = await newUser(system.gatewayUrl)
        expect(shown(await answer({ approved: true }, 'approve', stranger.token))).toEqual([404, 'not-found'])
        expect(payouts.ledgerOf(id).payments).toEqual([])

        provider.faults.next('settle-later', { on: 'POST /payments', looks: 2 })
        expect((await answer({ approved: true })).status).toBe(202)
        expect(shown(await answer({ approved: false }))).toEqual([409, 'already-given'])
        expect((await payouts.outcome(token, id)).status).toBe('succeeded')
        expect(shown(await answer({ approved: true }))).toEqual([409, 'already-terminal'])
      },
      2 * WITHIN_MS,
    )

    test(
      'of an operator is approved by another one alone, and one that is refused releases what it reserved',
      async () => {
        const owner = (await logIn(system.gatewayUrl, await addOperator(system.environment))).accessToken
        const [approved, refused] = [await submitLarge(owner), await submitLarge(owner)]
        const answer = (by: string, id: string, isApproved: boolean) =>
          payouts.signal(by, id, 'approve', { approved: isApproved })
        expect(shown(await answer(owner, approved, true))).toEqual([403, 'forbidden'])
        expect((await answer(operator, approved, true)).status).toBe(202)
        expect((await answer(operator, refused, false)).status).toBe(202)
        expect((await payouts.outcome(owner, approved)).status).toBe('succeeded')
        expect(await payouts.outcome(owner, refused)).toMatchObject({ error: { code: 'not-approved' } })
        expect(payouts.ledgerOf(refused)).toEqual({ reservations: [[`${refused}/reserve`, 'released']], payments: [] })
      },
      2 * WITHIN_MS,
    )

    test(
      'outlasts a provider that is away: it stays pending, an operator sees why, and it is paid once when that is back',
      async () => {
        const { token } = user
        const id = await submitLarge()
        const port = Number(new URL(provider.url).port)
        await provider.stop()
        await payouts.signal(operator, id, 'approve', { approved: true })
        const Run = v.object({ step: v.optional(v.string()), failures: v.number(), reason: v.optional(v.string()) })
        const ask = () => call('GET', `${system.processorUrl}/runs/${id}`, { token: operator })
        const answer = await askUntil(ask, ({ body }) => v.is(Run, body) && body.failures >= 2, WITHIN_MS)
        expect(expectBody(answer, 200, Run)).toMatchObject({
          step: 'pay',
          reason: expect.stringContaining('ECONNREFUSED'),
        })
        provider = await startProvider({ port, ledgerFile: join(parts.dataDir, 'ledger.db') })
        expect((await payouts.outcome(token, id)).status).toBe('succeeded')
        expect(payouts.ledgerOf(id)).toMatchObject({
          reservations: [[`${id}/reserve`, 'paid']],
          payments: [{ key: `${id}/pay`, status: 'settled' }],
        })
      },
      2 * WITHIN_MS,
    )
  })
}
