import { afterAll, expect, test } from 'bun:test'
import { eq } from 'drizzle-orm'
import { decode } from 'hono/jwt'
import { refreshTokens, users } from '../database/schema.ts'
import { ADDRESS, ISSUER, openAccounts, PASSWORD } from '../testing/accounts.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const { database, writer, register, logIn, me, verify, hasher, events } = accounts

/** The network of `refusal`, as events name it. */
const network = '198.51.100.0/24'

/** What a login is refused with, the work that it made, and the events of it. */
async function refusal(email: string, password: string) {
  const verifications = hasher.verifications
  const before = (await events()).length
  const error = await logIn({ email, password }, '198.51.100.7').catch((reason: unknown) => reason)
  return {
    problem: Bun.inspect(error).split('\n').at(0),
    error,
    verifications: hasher.verifications - verifications,
    events: (await events()).slice(before).map(({ type, data }) => ({ type, data })),
  }
}

test('an unknown user, a wrong password and a disabled user get the same answer after the same work', async () => {
  const ana = await register({ email: 'alike@example.com', password: PASSWORD })
  const former = await register({ email: 'former@example.com', password: PASSWORD })
  await writer.write([database.update(users).set({ disabledAt: 1 }).where(eq(users.id, former.id))])
  const all = [
    await refusal('alike@example.com', 'another password'),
    await refusal('nobody@example.com', PASSWORD),
    await refusal('not an email', PASSWORD),
    await refusal('former@example.com', PASSWORD),
  ]
  for (const { error, verifications } of all) {
    expect(error).toMatchObject({ code: 'invalid-credentials', message: 'Email or password is wrong' })
    expect(verifications).toBe(1)
  }
  const type = 'posta.user.login-failed'
  expect(all.map((each) => each.events)).toEqual([
    [{ type, data: { user: ana.id, reason: 'wrong-password', network } }],
    [{ type, data: { reason: 'unknown-user', network } }],
    [{ type, data: { reason: 'unknown-user', network } }],
    [{ type, data: { user: former.id, reason: 'disabled', network } }],
  ])
})

test('a login answers with tokens of a new session, and one event tells of it', async () => {
  const user = await register({ email: 'ana@example.com', password: PASSWORD })
  const tokens = await logIn({ email: 'ANA@Example.com', password: PASSWORD }, ADDRESS)
  expect(tokens).toEqual({
    accessToken: expect.any(String),
    tokenType: 'Bearer',
    expiresIn: 900,
    refreshToken: expect.stringMatching(/^[\w-]{43}$/),
    deviceToken: expect.stringMatching(/^[\w-]{22}\.[\w-]{43}$/),
  })
  const caller = await verify(tokens.accessToken)
  expect(caller).toEqual({ user: user.id, role: 'user', session: expect.any(String) })
  expect(await me(caller)).toEqual(user)
  const sessions = await database.select().from(refreshTokens).where(eq(refreshTokens.userId, user.id))
  expect(sessions).toHaveLength(1)
  expect((await events()).at(-1)).toMatchObject({
    type: 'posta.user.logged-in',
    data: { user: user.id, session: sessions[0]?.sessionId },
  })
})

test('an access token has the claims of its user, issuer, audience and times, and the id of its key', async () => {
  const { user, accessToken } = await accounts.enter('claims@example.com')
  const { header, payload } = decode(accessToken)
  const issuedAtS = Math.floor(accounts.deps.now() / 1000)
  expect(header).toEqual({ alg: 'EdDSA', typ: 'at+jwt', kid: (await accounts.keys.current()).kid })
  expect(payload).toEqual({
    iss: ISSUER,
    aud: 'posta',
    sub: user.id,
    role: 'user',
    sid: expect.any(String),
    jti: expect.any(String),
    iat: issuedAtS,
    exp: issuedAtS + 900,
  })
})

test('neither the database nor an event contains a refresh token', async () => {
  const { refreshToken } = await accounts.enter('stored@example.com')
  const again = await accounts.refresh({ refreshToken })
  const stored = JSON.stringify([await database.select().from(refreshTokens), await events()])
  expect(stored).not.toContain(refreshToken)
  expect(stored).not.toContain(again.refreshToken)
})

test('wrong passwords are throttled per email and address, before they are hashed', async () => {
  await register({ email: 'throttled@example.com', password: PASSWORD })
  const email = 'throttled@example.com'
  for (let n = 0; n < 10; n++) await logIn({ email, password: 'wrong' }, '198.51.100.7').catch(() => {})
  const { error, verifications, events } = await refusal(email.toUpperCase(), PASSWORD)
  expect(error).toMatchObject({ code: 'too-many-requests', retryAfterS: 60 })
  expect({ verifications, events }).toEqual({ verifications: 0, events: [] })
})

test('10 wrong passwords from each of 20 addresses, and 100 from that of the owner, refuse the owner on no known device', async () => {
  const email = 'owner@example.com'
  const { deviceToken } = await accounts.enter(email)
  const wrong = (address: string, n: number) =>
    Promise.all(Array.from({ length: n }, () => logIn({ email, password: 'wrong' }, address).catch(() => {})))
  for (let n = 0; n < 20; n++) await wrong(`203.0.113.${n}`, 10)
  await wrong(ADDRESS, 100)
  await expect(logIn({ email, password: PASSWORD }, ADDRESS)).rejects.toMatchObject({ code: 'too-many-requests' })
  expect(await logIn({ email, password: PASSWORD, deviceToken }, ADDRESS)).toMatchObject({ tokenType: 'Bearer' })
  expect(await logIn({ email, password: PASSWORD }, '203.0.113.200')).toMatchObject({ tokenType: 'Bearer' })
})

test('a device stays the same over logins, and its token helps with no other email', async () => {
  const { deviceToken } = await accounts.enter('device@example.com')
  const again = await logIn({ email: 'DEVICE@example.com', password: PASSWORD, deviceToken }, ADDRESS)
  expect(again.deviceToken).toBe(deviceToken ?? '')
  const email = 'other-device@example.com'
  await register({ email, password: PASSWORD })
  for (const presented of [deviceToken, `${deviceToken?.slice(0, -1)}_`, 'nonsense', '']) {
    const other = await logIn({ email, password: PASSWORD, deviceToken: presented }, ADDRESS)
    expect(other.deviceToken?.slice(0, 22)).not.toBe(deviceToken?.slice(0, 22) ?? '')
  }
  for (let n = 0; n < 10; n++) await logIn({ email, password: 'wrong', deviceToken }, '203.0.113.99').catch(() => {})
  await expect(logIn({ email, password: PASSWORD, deviceToken }, '203.0.113.99')).rejects.toMatchObject({
    code: 'too-many-requests',
  })
})

test('a hash with outdated parameters is replaced when its user logs in', async () => {
  const user = await register({ email: 'outdated@example.com', password: PASSWORD })
  const hashOf = async () =>
    (await database.select().from(users).where(eq(users.id, user.id))).at(0)?.passwordHash ?? ''
  const now = await hashOf()
  const passwordHash = now.replace('m=19456', 'm=4096')
  await writer.write([database.update(users).set({ passwordHash }).where(eq(users.id, user.id))])
  await logIn({ email: user.email, password: PASSWORD }, ADDRESS)
  expect(await hashOf()).toBe(now)
})

test('no session starts if the password changes while it is being checked', async () => {
  const user = await register({ email: 'meanwhile@example.com', password: PASSWORD })
  hasher.meanwhile = async () => {
    await writer.write([database.update(users).set({ passwordHash: 'another' }).where(eq(users.id, user.id))])
  }
  const { error, events } = await refusal(user.email, PASSWORD)
  hasher.meanwhile = async () => {}
  expect(error).toMatchObject({ code: 'invalid-credentials' })
  expect(events).toEqual([
    { type: 'posta.user.login-failed', data: { user: user.id, reason: 'wrong-password', network } },
  ])
  expect(await database.$count(refreshTokens, eq(refreshTokens.userId, user.id))).toBe(0)
})

test('a user has at most 50 sessions: the next login ends the oldest one, and none of another user', async () => {
  const { refresh, enter } = accounts
  const other = await enter('other-sessions@example.com')
  const first = await enter('sessions@example.com')
  const second = await logIn({ email: 'sessions@example.com', password: PASSWORD }, ADDRESS)
  const refreshed = await refresh({ refreshToken: second.refreshToken })
  for (let more = 0; more < 48; more++) await logIn({ email: 'sessions@example.com', password: PASSWORD }, ADDRESS)
  const again = await refresh({ refreshToken: first.refreshToken })

  await logIn({ email: 'sessions@example.com', password: PASSWORD }, ADDRESS)
  await expect(refresh({ refreshToken: again.refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
  await refresh({ refreshToken: refreshed.refreshToken })
  await refresh({ refreshToken: other.refreshToken })
  const own = database.select().from(refreshTokens).where(eq(refreshTokens.userId, first.user.id))
  expect(new Set((await own).map(({ sessionId }) => sessionId)).size).toBe(50)
})
