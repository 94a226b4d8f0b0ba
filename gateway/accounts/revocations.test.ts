import { afterAll, describe, expect, test } from 'bun:test'
import { remoteRevocations } from '@posta/common/service/revocations.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import { eq } from 'drizzle-orm'
import { revocations, users } from '../database/schema.ts'
import { ADDRESS, ISSUER, openAccounts, PASSWORD } from '../testing/accounts.ts'
import { createAdministration } from './administration.ts'
import { expiredRevocations, listRevocations } from './revocations.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const {
  database,
  writer,
  keys,
  deps,
  verify: atGateway,
  enter,
  logIn,
  logOut,
  refresh,
  changePassword,
  pass,
} = accounts
const administration = createAdministration(accounts)

/** Gateway's check of tokens, and that of another service, which asks gateway. */
let isAway = false
const isRevoked = remoteRevocations({
  jwksUrl: 'http://gateway.test/.well-known/jwks.json',
  deps: {
    monotonicMs: deps.monotonicMs,
    fetch: Object.assign(
      async (url: unknown) => {
        if (isAway) throw new Error('Gateway is away.')
        expect(String(url)).toBe('http://gateway.test/.well-known/revocations')
        return Response.json(await listRevocations(database, deps.now()))
      },
      { preconnect: () => {} },
    ),
  },
})
const elsewhere = createTokenVerifier({ issuer: ISSUER, findKey: keys.find, isRevoked, deps })

const answer = (result: Promise<unknown>) =>
  result.then(
    () => 'accepted',
    (error: unknown) => (error instanceof Error && 'code' in error ? error.code : error),
  )

/** At gateway at once, and at another service 20 s later. */
async function expectBoth(accessToken: string, expected: 'accepted' | 'invalid-token'): Promise<void> {
  expect(await answer(atGateway(accessToken))).toBe(expected)
  pass(20_000)
  expect(await answer(elsewhere(accessToken))).toBe(expected)
}

describe('an access token that was remembered as good is refused at gateway at once and elsewhere after 20 s, once', () => {
  let count = 0
  /** A new user with a token that both have seen. */
  async function shown() {
    const email = `revoked-${++count}@example.com`
    const entered = await enter(email)
    await expectBoth(entered.accessToken, 'accepted')
    return { email, ...entered }
  }

  test('its session was logged out; the other sessions go on', async () => {
    const { email, accessToken, refreshToken } = await shown()
    const other = await logIn({ email, password: PASSWORD }, ADDRESS)
    await logOut({ refreshToken })
    await expectBoth(accessToken, 'invalid-token')
    await expectBoth(other.accessToken, 'accepted')
  })

  test('its user was disabled; enabled again, the user needs a new login', async () => {
    const { email, accessToken } = await shown()
    await administration.disable(email)
    await expectBoth(accessToken, 'invalid-token')
    await administration.enable(email)
    await expectBoth(accessToken, 'invalid-token')
    await expectBoth((await logIn({ email, password: PASSWORD }, ADDRESS)).accessToken, 'accepted')
  })

  test('its user has another role; the next token of the session has the new one', async () => {
    const { email, accessToken, refreshToken } = await shown()
    await administration.setRole(email, 'operator')
    await expectBoth(accessToken, 'invalid-token')
    const next = await refresh({ refreshToken })
    await expectBoth(next.accessToken, 'accepted')
    await administration.setRole(email, 'user')
    await expectBoth(next.accessToken, 'invalid-token')
  })

  test('the password was changed in another session', async () => {
    const { email, accessToken } = await shown()
    const kept = await logIn({ email, password: PASSWORD }, ADDRESS)
    const caller = await atGateway(kept.accessToken)
    const change = {
      currentPassword: PASSWORD,
      newPassword: 'six other words nobody ever says',
      refreshToken: kept.refreshToken,
    }
    await changePassword(change, caller, ADDRESS)
    await expectBoth(accessToken, 'invalid-token')
    await expectBoth(kept.accessToken, 'accepted')
  })

  test('a refresh token of its session was used again', async () => {
    const { refreshToken } = await shown()
    const second = await refresh({ refreshToken })
    await refresh({ refreshToken: second.refreshToken })
    pass(31_000)
    expect(await answer(refresh({ refreshToken }))).toBe('invalid-credentials')
    await expectBoth(second.accessToken, 'invalid-token')
  })

  test('the user logged out everywhere, or ended that session from another', async () => {
    const { email, accessToken } = await shown()
    const other = await logIn({ email, password: PASSWORD }, ADDRESS)
    const caller = await atGateway(other.accessToken)
    const [newest, oldest] = await accounts.sessions(caller)
    expect([newest?.current, oldest?.current]).toEqual([true, false])
    await accounts.endSession(caller, oldest?.id ?? '')
    await expectBoth(accessToken, 'invalid-token')
    await expectBoth(other.accessToken, 'accepted')
    await accounts.logOutEverywhere(caller)
    await expectBoth(other.accessToken, 'invalid-token')
    expect(await accounts.sessions(caller)).toEqual([])
  })

  test('its user is gone', async () => {
    const { user, accessToken, refreshToken } = await shown()
    await logOut({ refreshToken })
    await writer.write([database.delete(users).where(eq(users.id, user.id))])
    expect(await answer(atGateway(accessToken))).toBe('invalid-token')
  })
})

test('a session of another user cannot be ended: it is not found', async () => {
  const [ana, bob] = [await enter('ana-ends@example.com'), await enter('bob-ends@example.com')]
  const [session] = await accounts.sessions(await atGateway(bob.accessToken))
  const ending = accounts.endSession(await atGateway(ana.accessToken), session?.id ?? '')
  await expect(ending).rejects.toMatchObject({ code: 'not-found' })
  expect(await answer(atGateway(bob.accessToken))).toBe('accepted')
})

test('while gateway is away the other services go on with what they know', async () => {
  const [known, fresh] = [await enter('known@example.com'), await enter('fresh@example.com')]
  await logOut({ refreshToken: known.refreshToken })
  await expectBoth(known.accessToken, 'invalid-token')
  isAway = true
  pass(20_000)
  expect(await answer(elsewhere(known.accessToken))).toBe('invalid-token')
  expect(await answer(elsewhere(fresh.accessToken))).toBe('accepted')
  isAway = false
})

test('a revocation is forgotten once every token of before has expired', async () => {
  const { refreshToken } = await enter('forgotten@example.com')
  await logOut({ refreshToken })
  pass(15 * 60_000)
  expect((await listRevocations(database, deps.now())).sessions.length).toBeGreaterThan(0)
  pass(61_000)
  expect(await listRevocations(database, deps.now())).toEqual({ sessions: [], users: [] })
  await writer.write([expiredRevocations(deps.now())(1000)])
  expect(await database.$count(revocations)).toBe(0)
})
