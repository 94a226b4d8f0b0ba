import { type Authenticated, bearer, type TokenVerifier } from '@posta/common/service/auth.ts'
import type { CommonConfig } from '@posta/common/service/config.ts'
import { clientAddress, jsonResponse, noStore, problemResponses, validate } from '@posta/common/service/http.ts'
import { Hono } from 'hono'
import { describeRoute } from 'hono-openapi'
import { PasswordChange } from '../accounts/change-password.ts'
import { Tokens } from '../accounts/credentials.ts'
import { Login } from '../accounts/login.ts'
import { Logout } from '../accounts/logout.ts'
import { Refresh } from '../accounts/refresh.ts'
import { Registration } from '../accounts/register.ts'
import { User } from '../accounts/user.ts'
import type { Accounts } from '../gateway.ts'

const tags = ['accounts']
const security = [{ bearer: [] }]
const badBody = ['malformed-request', 'payload-too-large', 'unsupported-media-type', 'invalid-input'] as const

export function accountRoutes(parts: {
  accounts: Accounts
  verify: TokenVerifier
  trustedProxies: CommonConfig['trustedProxies']
}): Hono<Authenticated> {
  const { accounts, verify, trustedProxies } = parts

  return new Hono<Authenticated>()
    .use(noStore)
    .post(
      '/register',
      describeRoute({
        tags,
        summary: 'Become a user',
        responses: {
          201: jsonResponse(User, 'The new user.'),
          ...problemResponses(...badBody, 'email-taken', 'overloaded'),
        },
      }),
      validate('json', Registration),
      async (c) => {
        const address = clientAddress(c, trustedProxies)
        return c.json(await accounts.register(c.req.valid('json'), { address }), 201)
      },
    )
    .post(
      '/login',
      describeRoute({
        tags,
        summary: 'Log in',
        description: 'Starts a session. An access token lives 15 minutes; the refresh token gets the next one.',
        responses: {
          200: jsonResponse(Tokens, 'Tokens of a new session.'),
          ...problemResponses(...badBody, 'invalid-credentials', 'too-many-requests', 'overloaded'),
        },
      }),
      validate('json', Login),
      async (c) => c.json(await accounts.logIn(c.req.valid('json'), clientAddress(c, trustedProxies))),
    )
    .post(
      '/refresh',
      describeRoute({
        tags,
        summary: 'Get new tokens',
        description:
          'Replaces the refresh token. Sent again within 30 seconds it answers with the same successor, as long as that is unused; any other reuse ends the session.',
        responses: {
          200: jsonResponse(Tokens, 'The next tokens of the session.'),
          ...problemResponses(...badBody, 'invalid-credentials', 'overloaded'),
        },
      }),
      validate('json', Refresh),
      async (c) => c.json(await accounts.refreshSession(c.req.valid('json'))),
    )
    .post(
      '/logout',
      describeRoute({
        tags,
        summary: 'End a session',
        responses: {
          204: { description: 'There is no such session any more.' },
          ...problemResponses(...badBody, 'overloaded'),
        },
      }),
      validate('json', Logout),
      async (c) => {
        await accounts.logOut(c.req.valid('json'))
        return c.body(null, 204)
      },
    )
    .post(
      '/password',
      describeRoute({
        tags,
        security,
        summary: 'Change your password',
        description: 'Ends your other sessions: all but that of `refreshToken`, if you send it.',
        responses: {
          204: { description: 'Changed.' },
          ...problemResponses(
            ...badBody,
            'invalid-token',
            'invalid-credentials',
            'conflict',
            'too-many-requests',
            'overloaded',
          ),
        },
      }),
      bearer(verify),
      validate('json', PasswordChange),
      async (c) => {
        await accounts.changePassword(c.req.valid('json'), c.var.caller, clientAddress(c, trustedProxies))
        return c.body(null, 204)
      },
    )
    .get(
      '/me',
      describeRoute({
        tags,
        security,
        summary: 'Who you are',
        responses: { 200: jsonResponse(User, 'You.'), ...problemResponses('invalid-token') },
      }),
      bearer(verify),
      async (c) => c.json(await accounts.me(c.var.caller)),
    )
}
