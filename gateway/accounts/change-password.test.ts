import { afterAll, expect, test } from 'bun:test'
import { eq } from 'drizzle-orm'
import { users } from '../database/schema.ts'
import { ADDRESS, openAccounts, PASSWORD } from '../testing/accounts.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const { database, writer, changePassword, logIn, refresh, events, enter, hasher } = accounts
const NEW = 'five words that nobody says'
const change = { currentPassword: PASSWORD, newPassword: NEW }

test('after a change the new password is right, the old one is wrong, and one event tells of it', async () => {
  const { user, caller } = await enter('changes@example.com')
  await changePassword(change, caller, ADDRESS)
  const { email } = user
  await expect(logIn({ email, password: PASSWORD }, ADDRESS)).rejects.toMatchObject({ code: 'invalid-credentials' })
  await logIn({ email, password: NEW }, ADDRESS)
  const told = (await events()).filter(({ type }) => type === 'posta.user.password-changed')
  expect(told).toMatchObject([{ data: { user: user.id } }])
})

test('a change ends every session of the user except that of the refresh token sent along', async () => {
  const { user, caller, refreshToken } = await enter('sessions@example.com')
  const other = await logIn({ email: user.email, password: PASSWORD }, ADDRESS)
  const foreign = await enter('foreign@example.com')
  await changePassword({ ...change, refreshToken }, caller, ADDRESS)
  expect(await refresh({ refreshToken })).toMatchObject({ tokenType: 'Bearer' })
  await expect(refresh({ refreshToken: other.refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
  expect(await refresh({ refreshToken: foreign.refreshToken })).toMatchObject({ tokenType: 'Bearer' })
})

test('a change rotates the session that it keeps: whoever holds its tokens from before is out', async () => {
  const { user, caller, refreshToken } = await enter('rotated@example.com')
  const second = await refresh({ refreshToken })
  const kept = await changePassword({ ...change, refreshToken: second.refreshToken }, caller, ADDRESS)
  expect(kept).toMatch(/^[\w-]{43}$/)
  expect(kept).not.toBe(second.refreshToken)
  const told = (await events()).filter(({ data }) => 'user' in data && data.user === user.id).map(({ type }) => type)
  expect(told.slice(-2)).toEqual(['posta.session.refreshed', 'posta.user.password-changed'])

  const third = await refresh({ refreshToken: kept })
  expect(third).toMatchObject({ tokenType: 'Bearer' })
  await expect(refresh({ refreshToken: second.refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
  await expect(refresh({ refreshToken: third.refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
})

test('the 30 s of a token from before end with a change: it gets no successor, and its session ends', async () => {
  const { caller, refreshToken } = await enter('grace@example.com')
  const second = await refresh({ refreshToken })
  const kept = await changePassword({ ...change, refreshToken: second.refreshToken }, caller, ADDRESS)
  await expect(refresh({ refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
  await expect(refresh({ refreshToken: kept })).rejects.toMatchObject({ code: 'invalid-credentials' })
})

test('a change with a token that was used before ends that session, too', async () => {
  const { caller, refreshToken } = await enter('used@example.com')
  const second = await refresh({ refreshToken })
  expect(await changePassword({ ...change, refreshToken }, caller, ADDRESS)).toBeUndefined()
  await expect(refresh({ refreshToken: second.refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
})

test("a change without a refresh token, or with another user's, ends every session of the user", async () => {
  const foreign = await enter('owner@example.com')
  for (const more of [{}, { refreshToken: foreign.refreshToken }]) {
    const { caller, refreshToken } = await enter(`all${'refreshToken' in more}@example.com`)
    await changePassword({ ...change, ...more }, caller, ADDRESS)
    await expect(refresh({ refreshToken })).rejects.toMatchObject({ code: 'invalid-credentials' })
  }
})

test('a wrong current password changes nothing, and is throttled with a count of its own', async () => {
  const { caller, refreshToken } = await enter('wrong@example.com')
  const wrong = { ...change, currentPassword: 'wrong' }
  for (let n = 0; n < 10; n++)
    await expect(changePassword(wrong, caller, ADDRESS)).rejects.toMatchObject({ code: 'invalid-credentials' })
  await expect(changePassword(change, caller, ADDRESS)).rejects.toMatchObject({ code: 'too-many-requests' })
  expect(await refresh({ refreshToken })).toMatchObject({ tokenType: 'Bearer' })
  await changePassword(change, caller, '203.0.113.1')
})

test('10 wrong logins from each of 20 addresses, one of them its own, keep nobody who is logged in from changing the password', async () => {
  const { user, caller } = await enter('attacked@example.com')
  const wrong = { email: user.email, password: 'wrong' }
  for (let n = 0; n < 20; n++)
    await Promise.all(Array.from({ length: 11 }, () => logIn(wrong, n ? `203.0.113.${n}` : ADDRESS).catch(() => {})))
  await changePassword(change, caller, ADDRESS)
})

test('the new password must be one that a user could register with', async () => {
  const { caller } = await enter('rules@example.com')
  for (const newPassword of ['too short', 'passwordpassword', 'rules@example.com'])
    await expect(changePassword({ ...change, newPassword }, caller, ADDRESS)).rejects.toMatchObject({
      code: 'invalid-input',
      errors: [{ pointer: '#/newPassword' }],
    })
})

test('of two changes at the same time one succeeds; a disabled or unknown user changes nothing', async () => {
  const { user, caller } = await enter('twice@example.com')
  const changes = [NEW, `${NEW} again`].map((newPassword) =>
    changePassword({ ...change, newPassword }, caller, ADDRESS),
  )
  const settled = await Promise.allSettled(changes)
  expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(settled).toContainEqual({ status: 'rejected', reason: expect.objectContaining({ code: 'conflict' }) })

  await writer.write([database.update(users).set({ disabledAt: 1 }).where(eq(users.id, user.id))])
  const verifications = hasher.verifications
  for (const who of [caller, { user: 'nobody', role: 'user' } as const])
    await expect(changePassword(change, who, ADDRESS)).rejects.toMatchObject({ code: 'invalid-credentials' })
  expect(hasher.verifications).toBe(verifications)
})
