import { afterAll, describe, expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { ADDRESS, openAccounts, PASSWORD } from '../testing/accounts.ts'

const accounts = await openAccounts()
afterAll(accounts.close)
const { register, logIn, events, pass } = accounts

/** The pointers of the faults that registering is refused for; undefined if it is not. */
async function faultsOf(registration: unknown): Promise<readonly string[] | undefined> {
  try {
    await register(registration)
    return undefined
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'invalid-input') throw error
    return error.errors?.map(({ pointer }) => pointer)
  }
}

test('an email belongs to one user, in whatever case, and one event tells of the registration', async () => {
  const user = await register({ email: 'Ana@Example.com', password: PASSWORD })
  expect(user).toMatchObject({ email: 'ana@example.com', role: 'user' })
  await expect(register({ email: 'ANA@example.COM', password: PASSWORD })).rejects.toMatchObject({
    code: 'email-taken',
  })
  const told = (await events()).filter(({ data }) => 'user' in data && data.user === user.id)
  expect(told).toMatchObject([{ type: 'posta.user.registered', data: { user: user.id } }])
})

test('of several registrations of an email at the same time one succeeds', async () => {
  const before = (await events()).length
  const attempts = Array.from({ length: 8 }, () => register({ email: 'race@example.com', password: PASSWORD }))
  const settled = await Promise.allSettled(attempts)
  expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  for (const each of settled) if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'email-taken' })
  expect(await events()).toHaveLength(before + 1)
})

test('a password has 15 to 256 code points, and any characters', async () => {
  const faults = (password: unknown, n: number) => faultsOf({ email: `length${n}@example.com`, password })
  expect(await faults('fourteen chars', 1)).toEqual(['#/password'])
  expect(await faults('fifteen chars..', 2)).toBeUndefined()
  expect(await faults('🦜🌵🎈🍋🧭🪁🎻🦔🌋🧵🪴🎲🐙🍄', 3)).toEqual(['#/password'])
  expect(await faults('🦜🌵🎈🍋🧭🪁🎻🦔🌋🧵🪴🎲🐙🍄🦉', 4)).toBeUndefined()
  const long = Array.from({ length: 257 }, (_, n) => String.fromCodePoint(0x4e00 + n)).join('')
  expect(await faults(long, 5)).toEqual(['#/password'])
  expect(await faults(long.slice(1), 6)).toBeUndefined()
  expect(await faults('half a pair \ud800 is no text', 7)).toEqual(['#/password'])
  expect(await faults(123456789012345, 8)).toEqual(['#/password'])
})

test('passwords that look the same are the same, whatever code points they were typed with', async () => {
  await register({ email: 'accents@example.com', password: 'ñandú über Ångström ﬁn'.normalize('NFD') })
  const login = { email: 'accents@example.com', password: 'ñandú über Ångström fin'.normalize('NFC') }
  expect(await logIn(login, ADDRESS)).toMatchObject({ tokenType: 'Bearer' })
})

test('common passwords, malformed emails and unknown members are refused', async () => {
  expect(await faultsOf({ email: 'b@example.com', password: 'PasswordPassword' })).toEqual(['#/password'])
  for (const email of [
    '',
    'b',
    'b@',
    '@example.com',
    'b @example.com',
    'b@exa mple.com',
    `${'b'.repeat(250)}@e.com`,
    7,
  ])
    expect(await faultsOf({ email, password: PASSWORD })).toEqual(['#/email'])
  expect(await faultsOf({ email: 'b@example.com', password: PASSWORD, role: 'operator' })).toEqual(['#/role'])
})

test('neither an error nor an event contains the email or the password', async () => {
  const secret = { email: 'secretive@example.com', password: 'secretive@example.com' }
  const refused = await register(secret).catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(Problem)
  expect(Bun.inspect(refused, { depth: 10 })).not.toContain('secretive@')
  await register({ ...secret, password: PASSWORD })
  const taken = await register({ ...secret, password: PASSWORD }).catch((error: unknown) => error)
  expect(Bun.inspect(taken, { depth: 10 })).not.toContain('secretive@')
  expect(JSON.stringify(await events())).not.toContain('@')
})

describe('a network', () => {
  const faults = async (
    register: ReturnType<typeof accounts.open>['register'],
    address: string,
    email = `${crypto.randomUUID()}@example.com`,
  ) =>
    register({ email, password: PASSWORD }, { address }).then(
      () => 'registered',
      (error: unknown) => (error instanceof Problem ? error.code : String(error)),
    )

  test('registers as many users an hour as the setting says, also over two gateways; a taken email counts too', async () => {
    const [{ register }, other] = [
      accounts.open({ registrationsPerHour: 10 }),
      accounts.open({ registrationsPerHour: 10 }),
    ]
    const email = 'budget@example.com'
    const answers: string[] = []
    for (let n = 0; n < 5; n++) answers.push(await faults(register, '203.0.113.1', email))
    for (let n = 0; n < 8; n++) answers.push(await faults(other.register, '203.0.113.1'))
    expect(answers).toEqual([
      'registered',
      ...Array(4).fill('email-taken'),
      ...Array(5).fill('registered'),
      ...Array(3).fill('too-many-requests'),
    ])
    expect(await faults(register, '203.0.113.2')).toBe('registered')
    pass(60 * 60 * 1000)
    expect(await faults(register, '203.0.113.1')).toBe('registered')
  })

  test('is a /64, a /56 and a /48 of IPv6: each wider one registers twice as many', async () => {
    const { register } = accounts.open({ registrationsPerHour: 3 })
    const registered = async (count: number, address: (n: number) => string) => {
      const answers: string[] = []
      for (let n = 0; n < count; n++) answers.push(await faults(register, address(n)))
      return answers.filter((answer) => answer === 'registered').length
    }
    expect(await registered(6, (n) => `2001:db8:7:100::${n}`)).toBe(3)
    expect(await registered(6, (n) => `2001:db8:7:10${n + 1}::1`)).toBe(3)
    expect(await registered(9, (n) => `2001:db8:7:${n + 2}00::1`)).toBe(6)
  })
})

test('who gave a check of registrations is asked before the hash and before the email is looked up', async () => {
  const asked: unknown[] = []
  const { register } = accounts.open({
    async checkRegistration(registration) {
      asked.push(registration)
      if (registration.proof !== 'right') throw new Problem('too-many-requests', 'The proof is wrong.')
    },
  })
  const registration = { email: 'proof@example.com', password: PASSWORD }
  const by = { address: ADDRESS, proof: 'wrong' }
  await expect(register(registration, by)).rejects.toMatchObject({ message: 'The proof is wrong.' })
  expect(await register(registration, { ...by, proof: 'right' })).toMatchObject({ email: 'proof@example.com' })
  await expect(register(registration, by)).rejects.toMatchObject({ message: 'The proof is wrong.' })
  expect(asked[0]).toEqual({ ...by, email: 'proof@example.com' })
})
