import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { clientAddress } from '@posta/common/service/client-address.ts'
import type { CommonConfig } from '@posta/common/service/config.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Accounts } from '../accounts/accounts.ts'
import { PasswordChange } from '../accounts/change-password.ts'
import { Tokens } from '../accounts/credentials.ts'
import { Login } from '../accounts/login.ts'
import { Logout } from '../accounts/logout.ts'
import { Session } from '../accounts/own-sessions.ts'
import { Refresh } from '../accounts/refresh.ts'
import { Registration } from '../accounts/register.ts'
import { User } from '../accounts/user.ts'

export function accountRoutes(options: {
  accounts: Accounts
  verify: TokenVerifier
  trustedProxies: CommonConfig['trustedProxies']
}): Hono<Authenticated> {
  const { accounts, verify, trustedProxies } = options
  const route = routesOf('accounts', verify)

  return new Hono<Authenticated>()
    .post(
      '/register',
      ...route({
        summary: 'Register',
        caller: 'anyone',
        body: Registration,
        answers: { 201: json(User, 'The new user.') },
        problems: ['email-taken', 'overloaded'],
      }),
      async (c) => {
        const address = clientAddress(c, trustedProxies)
        return c.json(await accounts.register(c.req.valid('json'), { address }), 201)
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
      async (c) => c.json(await accounts.logIn(c.req.valid('json'), clientAddress(c, trustedProxies))),
    )
    .post(
      '/refresh',
      ...route({
        summary: 'Get new tokens',
        description:
          'Replaces the refresh token. Sent again within 30 seconds, the old token gets the same successor, as long as the successor is unused. Any other reuse ends the session.',
        caller: 'anyone',
        body: Refresh,
        answers: { 200: json(Tokens, 'The next tokens of the session.') },
        problems: ['invalid-credentials', 'overloaded'],
      }),
      async (c) => c.json(await accounts.refresh(c.req.valid('json'))),
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
        await accounts.logOut(c.req.valid('json'))
        return c.body(null, 204)
      },
    )
    .post(
      '/password',
      ...route({
        summary: 'Change your password',
        description: 'Ends your other sessions: all except that of `refreshToken`, if you send it.',
        caller: 'user',
        body: PasswordChange,
        answers: { 204: { description: 'The password is changed.' } },
        problems: ['invalid-credentials', 'conflict', 'too-many-requests', 'overloaded'],
      }),
      async (c) => {
        await accounts.changePassword(c.req.valid('json'), c.var.caller, clientAddress(c, trustedProxies))
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
