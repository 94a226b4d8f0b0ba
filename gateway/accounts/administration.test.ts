import { afterAll, expect, test } from 'bun:test'
import { ADDRESS, openAccounts, PASSWORD } from '../testing/accounts.ts'
import { createAdministration } from './administration.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const { logIn, refresh, verify, events, enter } = accounts
const administration = createAdministration(accounts)
const refused = { code: 'invalid-credentials' }

test('a disabled user can use no session and cannot log in until enabled again', async () => {
  const { user, refreshToken } = await enter('out@example.com')
  await administration.disable('OUT@example.com')
  await expect(refresh({ refreshToken })).rejects.toMatchObject(refused)
  await expect(logIn({ email: user.email, password: PASSWORD }, ADDRESS)).rejects.toMatchObject(refused)
  await administration.enable(user.email)
  await expect(refresh({ refreshToken })).rejects.toMatchObject(refused)
  expect(await logIn({ email: user.email, password: PASSWORD }, ADDRESS)).toMatchObject({ tokenType: 'Bearer' })
})

test('setting a password ends the sessions of the user, and an event tells of it', async () => {
  const { user, refreshToken } = await enter('reset@example.com')
  await administration.setPassword(user.email, 'five words that nobody says')
  await expect(refresh({ refreshToken })).rejects.toMatchObject(refused)
  await expect(logIn({ email: user.email, password: PASSWORD }, ADDRESS)).rejects.toMatchObject(refused)
  await logIn({ email: user.email, password: 'five words that nobody says' }, ADDRESS)
  expect(await events()).toContainEqual(
    expect.objectContaining({ type: 'posta.user.password-changed', data: { user: user.id } }),
  )
  for (const common of ['passwordpassword', 'reset@example.com', 'short'])
    await expect(administration.setPassword(user.email, common)).rejects.toMatchObject({ code: 'invalid-input' })
})

test('a new role takes effect with the next access token, and the token of before is refused', async () => {
  const { user, refreshToken, accessToken } = await enter('role@example.com')
  await administration.setRole(user.email, 'operator')
  await expect(verify(accessToken)).rejects.toMatchObject({ code: 'invalid-token' })
  const next = await refresh({ refreshToken })
  expect(await verify(next.accessToken)).toMatchObject({ user: user.id, role: 'operator' })
})

test('all users are listed, in the order in which they registered', async () => {
  const emails: string[] = []
  for await (const { email } of administration.list()) emails.push(email)
  expect(emails).toEqual(['out@example.com', 'reset@example.com', 'role@example.com'])
})

test('an unknown email is not found', async () => {
  for (const act of [administration.disable, administration.enable])
    await expect(act('nobody@example.com')).rejects.toMatchObject({ code: 'not-found' })
  await expect(administration.setRole('nobody@example.com', 'user')).rejects.toMatchObject({ code: 'not-found' })
  await expect(administration.setPassword('nobody@example.com', PASSWORD)).rejects.toMatchObject({ code: 'not-found' })
})
