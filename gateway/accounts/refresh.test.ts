import { afterAll, expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull } from 'drizzle-orm'
import * as fc from 'fast-check'
import { refreshTokens, users } from '../database/schema.ts'
import { defaultQuotas } from '../quotas.ts'
import { ADDRESS, ISSUER, openAccounts, PASSWORD } from '../testing/accounts.ts'
import { createGrant } from './access-tokens.ts'
import { createRefresh } from './refresh.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const { database, writer, logIn, logOut, refresh, verify, events, pass, enter, deps } = accounts

/** The token that follows, or the code of the problem. */
async function next(refreshToken: string): Promise<string> {
  try {
    return (await refresh({ refreshToken })).refreshToken
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    return error.code
  }
}

const eventsOf = async (user: string) =>
  (await events()).flatMap(({ type, data }) => ('user' in data && data.user === user ? [type] : []))

test("a refresh gives the next token of the session, and an access token with the user's present role", async () => {
  const { user, refreshToken } = await enter('rotates@example.com')
  await writer.write([database.update(users).set({ role: 'operator' }).where(eq(users.id, user.id))])
  const tokens = await refresh({ refreshToken })
  expect(tokens.refreshToken).not.toBe(refreshToken)
  expect(await verify(tokens.accessToken)).toMatchObject({ user: user.id, role: 'operator' })
  expect(await eventsOf(user.id)).toEqual(['posta.user.registered', 'posta.user.logged-in', 'posta.session.refreshed'])
})

test('requests with the same token at the same time get the same successor, and the session is refreshed once', async () => {
  const { user, refreshToken } = await enter('at-once@example.com')
  const successors = await Promise.all(Array.from({ length: 10 }, () => next(refreshToken)))
  expect(new Set(successors).size).toBe(1)
  expect(successors[0]).toMatch(/^[\w-]{43}$/)
  const unused = and(eq(refreshTokens.userId, user.id), isNull(refreshTokens.usedAt))
  expect(await database.$count(refreshTokens, unused)).toBe(1)
  expect((await eventsOf(user.id)).filter((type) => type === 'posta.session.refreshed')).toHaveLength(1)
})

test('reuse at the same time is detected once, and the other sessions of the user go on', async () => {
  const { user, refreshToken } = await enter('reused@example.com')
  const other = await logIn({ email: user.email, password: PASSWORD }, ADDRESS)
  const second = await next(refreshToken)
  await next(second)
  expect(await Promise.all([1, 2, 3].map(() => next(refreshToken)))).toEqual(Array(3).fill('invalid-credentials'))
  expect(await next(second)).toBe('invalid-credentials')
  expect((await eventsOf(user.id)).filter((type) => type === 'posta.session.reuse-detected')).toHaveLength(1)
  expect(await next(other.refreshToken)).toMatch(/^[\w-]{43}$/)
})

test('a session can be refreshed 20,000 times, so its rows are bounded', async () => {
  const { user, refreshToken } = await enter('often@example.com')
  const second = await next(refreshToken)
  const own = eq(refreshTokens.userId, user.id)
  expect(await database.select({ refreshes: refreshTokens.refreshes }).from(refreshTokens).where(own)).toEqual([
    { refreshes: 0 },
    { refreshes: 1 },
  ])
  await writer.write([
    database
      .update(refreshTokens)
      .set({ refreshes: 19_999 })
      .where(and(own, eq(refreshTokens.refreshes, 1))),
  ])
  const last = await next(second)
  expect(last).toMatch(/^[\w-]{43}$/)
  expect(await next(last)).toBe('invalid-credentials')
})

test('a disabled user cannot refresh', async () => {
  const { user, refreshToken } = await enter('disabled@example.com')
  await writer.write([database.update(users).set({ disabledAt: 1 }).where(eq(users.id, user.id))])
  expect(await next(refreshToken)).toBe('invalid-credentials')
})

test('an unknown token is refused, and input that cannot be a token is invalid', async () => {
  expect(await next('')).toBe('invalid-credentials')
  expect(await next('x'.repeat(43))).toBe('invalid-credentials')
  expect(await next('x'.repeat(257))).toBe('invalid-input')
  await expect(refresh({ refreshToken: 7 })).rejects.toMatchObject({ code: 'invalid-input' })
  await expect(refresh({})).rejects.toMatchObject({ code: 'invalid-input' })
})

test('logging out ends the session once, and resolves for unknown tokens too', async () => {
  const { user, refreshToken } = await enter('leaves@example.com')
  const successor = await next(refreshToken)
  await Promise.all([1, 2, 3].map(() => logOut({ refreshToken: successor })))
  await logOut({ refreshToken })
  await logOut({ refreshToken: 'none' })
  expect(await next(successor)).toBe('invalid-credentials')
  expect((await eventsOf(user.id)).filter((type) => type === 'posta.user.logged-out')).toHaveLength(1)
})

// The rules of rotation as a model of its own: whatever is done in whatever order, both agree.

const SECOND_MS = 1000
const DAY_MS = 24 * 60 * 60 * SECOND_MS

interface ModelToken {
  readonly text: string
  readonly session: { isLive: boolean; readonly endsAtMs: number }
  readonly expiresAtMs: number
  usedAtMs?: number
  successor?: ModelToken
}
interface Model {
  readonly tokens: ModelToken[]
}
interface Real {
  readonly email: string
}

function issue(model: Model, text: string, session: ModelToken['session']): ModelToken {
  const token = { text, session, expiresAtMs: Math.min(deps.now() + 30 * DAY_MS, session.endsAtMs) }
  model.tokens.push(token)
  return token
}

/** The one of the tokens so far that a number stands for: the latest are the likeliest. */
const pick = ({ tokens }: Model, back: number) => tokens[tokens.length - 1 - (back % Math.max(1, tokens.length))]

const login: fc.AsyncCommand<Model, Real> = {
  check: () => true,
  async run(model, { email }) {
    const { refreshToken } = await logIn({ email, password: PASSWORD }, ADDRESS)
    issue(model, refreshToken, { isLive: true, endsAtMs: deps.now() + 90 * DAY_MS })
  },
  toString: () => 'log in',
}

const refreshing = (back: number): fc.AsyncCommand<Model, Real> => ({
  check: (model) => model.tokens.length > 0,
  async run(model) {
    const token = pick(model, back)
    if (!token) return
    const { session, usedAtMs, successor } = token
    const answer = await next(token.text)
    if (!session.isLive || token.expiresAtMs <= deps.now()) expect(answer).toBe('invalid-credentials')
    else if (usedAtMs === undefined) {
      expect(model.tokens.map(({ text }) => text)).not.toContain(answer)
      expect(answer).toMatch(/^[\w-]{43}$/)
      token.usedAtMs = deps.now()
      token.successor = issue(model, answer, session)
    } else if (deps.now() - usedAtMs <= 30 * SECOND_MS && successor?.usedAtMs === undefined)
      expect(answer).toBe(successor?.text ?? 'a successor')
    else {
      expect(answer).toBe('invalid-credentials')
      session.isLive = false
    }
  },
  toString: () => `refresh with the ${back}th last`,
})

const leaving = (back: number): fc.AsyncCommand<Model, Real> => ({
  check: (model) => model.tokens.length > 0,
  async run(model) {
    const token = pick(model, back)
    if (!token) return
    await logOut({ refreshToken: token.text })
    if (token.expiresAtMs > deps.now()) token.session.isLive = false
  },
  toString: () => `log out with the ${back}th last`,
})

const passing = (ms: number): fc.AsyncCommand<Model, Real> => ({
  check: () => true,
  async run() {
    pass(ms)
  },
  toString: () => `${ms} ms pass`,
})

test('any order of logins, refreshes, logouts and passing time agrees with the rules of rotation', async () => {
  let user = 0
  const back = fc.oneof({ weight: 3, arbitrary: fc.nat(1) }, { weight: 1, arbitrary: fc.nat(12) })
  const commands = fc.commands(
    [
      fc.constant(login),
      back.map(refreshing),
      back.map(refreshing),
      back.map(refreshing),
      back.map(leaving),
      fc.constantFrom(1, 29 * SECOND_MS, 30 * SECOND_MS, 31 * SECOND_MS, DAY_MS, 29 * DAY_MS, 31 * DAY_MS).map(passing),
    ],
    { maxCommands: 40 },
  )
  await fc.assert(
    fc.asyncProperty(commands, async (script) => {
      const email = `model${user++}@example.com`
      await accounts.register({ email, password: PASSWORD })
      await fc.asyncModelRun(() => ({ model: { tokens: [] }, real: { email } }), script)
    }),
    { numRuns: 60 },
  )
})

test("a user's refreshes in an hour are bounded, over all sessions; the token stays good for the next hour", async () => {
  const { user, refreshToken } = await enter('refreshes@example.com')
  const other = await logIn({ email: user.email, password: PASSWORD }, ADDRESS)
  const quotas = { ...defaultQuotas, 'refreshes-per-hour': { user: 3, operator: 3 } }
  const bounded = createRefresh({ ...accounts, grant: createGrant({ ...accounts, issuer: ISSUER }), quotas })
  const pass = (tokens: { refreshToken: string }) => bounded({ refreshToken: tokens.refreshToken })
  const second = await pass({ refreshToken })
  const third = await pass(await pass(second))
  await expect(pass(third)).rejects.toMatchObject({ code: 'quota-exceeded', rateLimit: { quota: 3, windowS: 3600 } })
  await expect(pass(other)).rejects.toMatchObject({ code: 'quota-exceeded' })
  accounts.pass(3600_000)
  expect((await pass(third)).refreshToken).toMatch(/^[\w-]{43}$/)
  expect((await pass(other)).refreshToken).toMatch(/^[\w-]{43}$/)
})
