import { afterAll, beforeAll, expect, test } from 'bun:test'
import * as v from 'valibot'
import { askUntil, call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { describeLong, describeOnParts, type MakeParts, type Parts } from '../testing/parts.ts'
import { newOperator, newUser, PASSWORD, type User } from '../testing/users.ts'

const PER_HOUR = 20

const Events = v.object({
  items: v.array(v.object({ type: v.string(), data: v.record(v.string(), v.unknown()) })),
})
type Events = v.InferOutput<typeof Events>['items']

describeOnParts(describeLong, describeLockingOut)

/** Attackers without an account, who send what they like from as many addresses as they like. */
function describeLockingOut(makeParts: MakeParts): void {
  let parts: Parts
  let urls: System
  let operator: string
  beforeAll(async () => {
    parts = await makeParts()
    const environment = {
      ...parts.environment,
      // A test stands in for a proxy that names its clients.
      TRUSTED_PROXIES: '127.0.0.1',
      REGISTRATIONS_PER_HOUR: String(PER_HOUR),
    }
    urls = await startInProcess(environment)
    operator = await newOperator(environment, urls.gatewayUrl)
  }, 60_000)
  afterAll(async () => {
    await urls.close()
    await parts.dispose()
  })

  const from = (address: string, more: Record<string, string> = {}) => ({
    headers: { 'X-Forwarded-For': address, ...more },
  })
  const tryPassword = async ({ email }: User, address: string, password: string, cookie?: string) =>
    call('POST', `${urls.gatewayUrl}/auth/login`, {
      body: { email, password },
      ...from(address, cookie === undefined ? {} : { cookie }),
    })

  /** Resolves to the events of a type of the user, once `done` accepts them. */
  async function eventsOf({ id }: User, type: string, done: (events: Events) => boolean): Promise<Events> {
    const answer = await askUntil(
      () => call('GET', `${urls.monitorUrl}/events?user=${id}&type=${type}&limit=100`, { token: operator }),
      (each) => done(expectBody(each, 200, Events).items),
      30_000,
    )
    return expectBody(answer, 200, Events).items
  }
  const total = (events: Events) => events.reduce((sum, { data }) => sum + Number(data.count), 0)

  test('11 wrong passwords from each of 12 addresses, one of them the owner’s, refuse the owner on no known device and nowhere else, and each is in the audit', async () => {
    const owner = await newUser(urls.gatewayUrl)
    const home = '192.0.2.1'
    const device = (await tryPassword(owner, home, PASSWORD)).headers.get('set-cookie')?.split(';')[0] ?? ''
    const answers: number[] = []
    for (const address of [...Array.from({ length: 11 }, (_, n) => `198.51.100.${n}`), home])
      for (let n = 0; n < 11; n += 1) answers.push((await tryPassword(owner, address, 'a wrong password')).status)
    expect(answers.filter((status) => status === 401)).toHaveLength(120)
    const refused = await tryPassword(owner, home, PASSWORD)
    expect(refused).toMatchObject({ status: 429, body: { code: 'too-many-requests' } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)

    expect((await tryPassword(owner, home, PASSWORD, device)).status).toBe(200)
    expect((await tryPassword(owner, '203.0.113.1', PASSWORD)).status).toBe(200)
    const change = { currentPassword: PASSWORD, newPassword: 'another sentence that only I know' }
    const changed = await call('POST', `${urls.gatewayUrl}/auth/password`, {
      token: owner.token,
      body: change,
      ...from(home),
    })
    expect(changed.status).toBe(204)

    const events = await eventsOf(owner, 'posta.attempts.throttled', (each) => total(each) >= 13)
    expect(total(events)).toBe(13)
    expect(new Set(events.map(({ data }) => data.network))).toEqual(new Set(['192.0.2.0/24', '198.51.100.0/24']))
    expect(JSON.stringify(events)).not.toContain(owner.email)
  }, 120_000)

  test('110 registrations at once from 110 addresses refuse no login', async () => {
    const users = [await newUser(urls.gatewayUrl), await newUser(urls.gatewayUrl)]
    let isOver = false
    const registrations = Promise.all(
      Array.from({ length: 110 }, (_, n) =>
        call('POST', `${urls.gatewayUrl}/auth/register`, {
          body: { email: `flood-${n}@example.com`, password: PASSWORD },
          ...from(`198.51.100.${n}`),
        }),
      ),
    ).finally(() => {
      isOver = true
    })
    const logins: number[] = []
    while (!isOver) for (const user of users) logins.push((await tryPassword(user, '203.0.113.7', PASSWORD)).status)
    expect(logins.length).toBeGreaterThan(0)
    expect(new Set(logins)).toEqual(new Set([200]))
    const statuses = (await registrations).map(({ status }) => status)
    expect(new Set(statuses)).toEqual(new Set([201, 503]))
  }, 120_000)

  test(`${PER_HOUR + 30} registrations from one IPv6 /64 store ${PER_HOUR} accounts, and other networks go on`, async () => {
    const register = (n: number, address: string) =>
      call('POST', `${urls.gatewayUrl}/auth/register`, {
        // No hash is spent on an email that is taken, and it counts alike.
        body: { email: n === 0 ? 'first@example.com' : 'FIRST@example.com', password: PASSWORD },
        ...from(address),
      })
    const statuses: number[] = []
    for (let n = 0; n < PER_HOUR + 30; n += 1) statuses.push((await register(n, `2001:db8:5:5::${n}`)).status)
    expect(statuses.filter((status) => status === 429)).toHaveLength(30)
    expect((await register(1, '2001:db8:6::1')).status).toBe(409)
  }, 60_000)

  test('a token stolen with its session is found at its first use within 30 s, where the owner sends a device token', async () => {
    const owner = await newUser(urls.gatewayUrl)
    const cookie = (await tryPassword(owner, '192.0.2.2', PASSWORD)).headers.get('set-cookie')?.split(';')[0] ?? ''
    const refresh = (refreshToken: string, headers: Record<string, string> = {}) =>
      call('POST', `${urls.gatewayUrl}/auth/refresh`, { body: { refreshToken }, headers })
    expect((await refresh(owner.refreshToken, { cookie })).status).toBe(200)
    expect((await refresh(owner.refreshToken, { cookie })).status).toBe(200)
    expect((await refresh(owner.refreshToken)).status).toBe(401)
    const reuse = await eventsOf(owner, 'posta.session.reuse-detected', ({ length }) => length > 0)
    expect(reuse).toMatchObject([{ data: { reason: 'other-device' } }])
    await eventsOf(owner, 'posta.session.repeated', ({ length }) => length === 1)
  }, 60_000)

  test('20 requests of a user for what only operators see are counted in the audit, at each service', async () => {
    const user = await newUser(urls.gatewayUrl)
    for (const url of [`${urls.monitorUrl}/stats`, `${urls.processorUrl}/runs/paused`])
      for (let n = 0; n < 20; n += 1) expect((await call('GET', url, { token: user.token })).status).toBe(403)
    const events = await eventsOf(user, 'posta.request.forbidden', (each) => total(each) >= 40)
    expect(total(events)).toBe(40)
    expect(new Set(events.map(({ data }) => `${data.service} ${data.route}`))).toEqual(
      new Set(['monitor /stats', 'processor /runs/paused']),
    )
  }, 60_000)
}
