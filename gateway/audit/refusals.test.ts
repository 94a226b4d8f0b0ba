import { afterAll, expect, test } from 'bun:test'
import type { Forbidden } from '@posta/common/service/forbidden.ts'
import { withoutUser } from '@posta/common/service/forbidden.ts'
import { createLog } from '@posta/common/service/log.ts'
import { createTally } from '@posta/common/service/tally.ts'
import { openAccounts, PASSWORD } from '../testing/accounts.ts'
import { tellRefusals } from './refusals.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const { logIn, changePassword, throttled, events, deps, enter } = accounts
const forbidden = createTally<Forbidden>(withoutUser, deps.now)

/** Lets everything that was refused be told, and resolves to the events of it. */
async function tell() {
  const before = (await events()).length
  const log = createLog('test', 'silent')
  for (const component of tellRefusals({ ...accounts, throttled, forbidden, log })) {
    await component.start?.()
    await component.close?.(1000)
  }
  return (await events()).slice(before).map(({ type, data }) => ({ type, data }))
}

test('20 tries for an email are 10 failed logins and one event that counts 10 throttled ones, with the user and the network', async () => {
  const { user } = await enter('tried@example.com')
  const before = (await events()).length
  for (let n = 0; n < 20; n++) await logIn({ email: user.email, password: 'wrong' }, '2001:db8:9:1::1').catch(() => {})
  const failed = (await events()).slice(before)
  expect(failed).toHaveLength(10)
  expect(failed[0]?.data).toEqual({ user: user.id, reason: 'wrong-password', network: '2001:db8:9::/48' })
  const at = new Date(deps.now()).toISOString()
  const told = { what: 'login', network: '2001:db8:9::/48', count: 10, from: at, to: at } as const
  expect(await tell()).toEqual([{ type: 'posta.attempts.throttled', data: { user: user.id, ...told } }])
  expect(await tell()).toEqual([])
})

test('throttled attempts for an email that nobody has tell of no user, and never of the email', async () => {
  const email = 'nobody-has-this@example.com'
  for (let n = 0; n < 13; n++) await logIn({ email, password: 'wrong' }, '203.0.113.5').catch(() => {})
  const told = await tell()
  expect(told).toMatchObject([{ data: { what: 'login', network: '203.0.113.0/24', count: 3 } }])
  expect(told[0]?.data).not.toHaveProperty('user')
  expect(JSON.stringify(await events())).not.toContain(email)
})

test('throttled registrations and changes of passwords are told of, too', async () => {
  const { user, caller } = await enter('changer@example.com')
  const change = { currentPassword: 'wrong', newPassword: `${PASSWORD} too` }
  for (let n = 0; n < 12; n++) await changePassword(change, caller, '192.0.2.9').catch(() => {})
  const { register } = accounts.open({ registrationsPerHour: 1 })
  for (let n = 0; n < 4; n++)
    await register({ email: `many${n}@example.com`, password: PASSWORD }, { address: '192.0.2.9' }).catch(() => {})
  expect(await tell()).toMatchObject([
    { data: { what: 'password-change', user: user.id, count: 2 } },
    { data: { what: 'registration', network: '192.0.2.0/24', count: 3 } },
  ])
})

test('requests that were forbidden are one event for each user, route and network', async () => {
  const request = { user: 'ana', service: 'gateway', method: 'POST', route: '/graphql', network: undefined } as const
  for (let n = 0; n < 5; n++) forbidden.add(request)
  forbidden.add({ ...request, user: 'bob' })
  expect(await tell()).toMatchObject([
    { type: 'posta.request.forbidden', data: { user: 'ana', service: 'gateway', route: '/graphql', count: 5 } },
    { type: 'posta.request.forbidden', data: { user: 'bob', count: 1 } },
  ])
})
