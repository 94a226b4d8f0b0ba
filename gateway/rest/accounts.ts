import { NAME } from '@posta/common/name.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { clientAddress } from '@posta/common/service/client-address.ts'
import type { CommonConfig } from '@posta/common/service/config.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { type Context, Hono } from 'hono'
import { getCookie, setCookie } from 'hono/cookie'
import * as v from 'valibot'
import type { Accounts } from '../accounts/accounts.ts'
import { PasswordChange } from '../accounts/change-password.ts'
import { DeviceToken, Tokens } from '../accounts/credentials.ts'
import { Login } from '../accounts/login.ts'
import { Logout } from '../accounts/logout.ts'
import { Session } from '../accounts/own-sessions.ts'
import { Refresh } from '../accounts/refresh.ts'
import { Registration } from '../accounts/register.ts'
import { User } from '../accounts/user.ts'

const DEVICE_COOKIE = `${NAME}_device`
/** Browsers keep no cookie for longer. */
const DEVICE_COOKIE_S = 400 * 24 * 60 * 60
export const PROOF_HEADER = 'Registration-Proof'

/** The body with the device token of the cookie, if it has none itself. */
function withDevice<Body extends { deviceToken?: string | undefined }>(c: Context, body: Body): Body {
  const cookie = getCookie(c, DEVICE_COOKIE)
  return body.deviceToken === undefined && v.is(DeviceToken, cookie) ? { ...body, deviceToken: cookie } : body
}

export function accountRoutes(options: {
  accounts: Accounts
  verify: TokenVerifier
  config: Pick<CommonConfig, 'trustedProxies' | 'production'>
}): Hono<Authenticated> {
  const { accounts, verify, config } = options
  const { trustedProxies } = config
  const route = routesOf('accounts', verify)

  /** For browsers. The cookie lets nobody in, so other origins gain nothing by having it sent. */
  const keepDevice = (c: Context, token: string) =>
    setCookie(c, DEVICE_COOKIE, token, {
      httpOnly: true,
      sameSite: 'Strict',
      secure: config.production,
      path: '/auth',
      maxAge: DEVICE_COOKIE_S,
    })

  return new Hono<Authenticated>()
    .post(
      '/register',
      ...route({
        summary: 'Register',
        caller: 'anyone',
        body: Registration,
        answers: { 201: json(User, 'The new user.') },
        problems: ['email-taken', 'too-many-requests', 'overloaded'],
      }),
      async (c) => {
        const by = { address: clientAddress(c, trustedProxies), proof: c.req.header(PROOF_HEADER) }
        const user = await accounts.register(c.req.valid('json'), by)
        keepDevice(c, accounts.devices.issue(user.email, getCookie(c, DEVICE_COOKIE)))
        return c.json(user, 201)
      },
    )
    .post(
      '/login',
      ...route({
        summary: 'Log in',
        description: 'Starts a session. An access token lives 15 minutes; the refresh token gets the next one.',
        caller: 'anyone',
        body: Login,
        answers: { 200: json(Tokens, 'The tokens of a new session.') },
        problems: ['invalid-credentials', 'too-many-requests', 'overloaded'],
      }),
      async (c) => {
        const tokens = await accounts.logIn(withDevice(c, c.req.valid('json')), clientAddress(c, trustedProxies))
        if (tokens.deviceToken) keepDevice(c, tokens.deviceToken)
        return c.json(tokens)
      },
    )
    .post(
      '/refresh',
      ...route({
        summary: 'Get new tokens',
        description:
          'Replaces the refresh token. Sent again within 30 seconds with the same device token, the old token gets the same successor, as long as the successor is unused. Any other reuse ends the session.',
        caller: 'anyone',
        body: Refresh,
        answers: { 200: json(Tokens, 'The next tokens of the session.') },
        problems: ['invalid-credentials', 'quota-exceeded', 'overloaded'],
      }),
      async (c) => c.json(await accounts.refresh(withDevice(c, c.req.valid('json')), clientAddress(c, trustedProxies))),
    )
    .post(
      '/logout',
      ...route({
        summary: 'Log out',
        caller: 'anyone',
        body: Logout,
        answers: { 204: { description: 'The session has ended, or there was none.' } },
        problems: ['overloaded'],
      }),
      async (c) => {
        await accounts.logOut(c.req.valid('json'), clientAddress(c, trustedProxies))
        return c.body(null, 204)
      },
    )
    .post(
      '/password',
      ...route({
        summary: 'Change your password',
        description:
          'Ends your other sessions: all except that of `refreshToken`, if you send it. The header `Refresh-Token` of the answer is then the next token of that session, and the one that you sent is used.',
        caller: 'user',
        body: PasswordChange,
        answers: { 204: { description: 'The password is changed.' } },
        problems: ['invalid-credentials', 'conflict', 'too-many-requests', 'overloaded'],
      }),
      async (c) => {
        const change = withDevice(c, c.req.valid('json'))
        const next = await accounts.changePassword(change, c.var.caller, clientAddress(c, trustedProxies))
        if (next !== undefined) c.header('Refresh-Token', next)
        return c.body(null, 204)
      },
    )
    .post(
      '/logout-everywhere',
      ...route({
        summary: 'Log out everywhere',
        description: 'Ends all your sessions, this one too.',
        caller: 'user',
        answers: { 204: { description: 'All sessions have ended.' } },
        problems: ['overloaded'],
      }),
      async (c) => {
        await accounts.logOutEverywhere(c.var.caller)
        return c.body(null, 204)
      },
    )
    .get(
      '/sessions',
      ...route({
        summary: 'Your sessions, newest first',
        caller: 'user',
        answers: { 200: json(v.object({ items: v.array(Session) }), 'All sessions that you could go on with.') },
      }),
      async (c) => c.json({ items: await accounts.sessions(c.var.caller) }),
    )
    .delete(
      '/sessions/:id',
      ...route({
        summary: 'End one of your sessions',
        description:
          'Its refresh token is void. Gateway refuses its access tokens at once, the other services within 60 seconds.',
        caller: 'user',
        answers: { 204: { description: 'The session has ended.' } },
        problems: ['not-found', 'overloaded'],
      }),
      async (c) => {
        await accounts.endSession(c.var.caller, c.req.param('id'))
        return c.body(null, 204)
      },
    )
    .get(
      '/me',
      ...route({
        summary: 'The user you are logged in as',
        caller: 'user',
        answers: { 200: json(User, 'The user of the access token.') },
      }),
      async (c) => c.json(await accounts.me(c.var.caller)),
    )
}
