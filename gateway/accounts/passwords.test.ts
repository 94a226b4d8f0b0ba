import { expect, test } from 'bun:test'
import { type Asking, createPasswords } from './passwords.ts'

test('passwords are hashed by argon2id with 19 MiB and two passes, and verified', async () => {
  const passwords = createPasswords()
  const hash = await passwords.hash('four words nobody says')
  expect(hash).toStartWith('$argon2id$v=19$m=19456,t=2,p=1$')
  expect(await passwords.verify('four words nobody says', hash)).toBe(true)
  expect(await passwords.verify('four words nobody said', hash)).toBe(false)
  expect(passwords.isOutdated(hash)).toBe(false)
  expect(passwords.isOutdated(hash.replace('m=19456', 'm=4096'))).toBe(true)
})

test('without a hash the same work is done, and no password matches', async () => {
  const verified: unknown[] = []
  const passwords = createPasswords({
    hash: async () => 'of nobody',
    async verify(_password, hash) {
      verified.push(hash)
      return true
    },
  })
  expect(await passwords.verify('any', undefined)).toBe(false)
  expect(await passwords.verify('any', 'of somebody')).toBe(true)
  expect(verified).toEqual(['of nobody', 'of somebody'])
})

test('sources take turns, and one that fills the queue keeps no other out', async () => {
  const { passwords, begun, drain } = startOneCore()
  const refused: string[] = []
  const verify = (name: string, source: string) =>
    passwords.verify(name, 'of somebody', { lane: 'login', source }).catch(() => void refused.push(name))
  const asked = Array.from({ length: 1 + 32 + 3 }, (_, n) => verify(`flood${n}`, 'one'))
  asked.push(verify('ana', 'two'), verify('bob', 'three'), verify('eve', 'two'))
  await drain()
  await Promise.all(asked)
  expect(begun.slice(0, 5)).toEqual(['flood0', 'flood1', 'ana', 'bob', 'flood2'])
  expect(begun).toContain('eve')
  // Three that came to a full queue, and the newest of those that waited, one for each of the others.
  expect(refused).toEqual(['flood33', 'flood34', 'flood35', 'flood32', 'flood31', 'flood30'])
  expect(passwords.waiting()).toBe(0)
})

test('no more hashes run at the same time than there are cores, and a full queue refuses as overloaded', async () => {
  const gate = Promise.withResolvers<void>()
  let running = 0
  let most = 0
  const passwords = createPasswords(
    {
      hash: async () => 'of nobody',
      async verify() {
        most = Math.max(most, ++running)
        await gate.promise
        running -= 1
        return true
      },
    },
    2,
  )
  const asked = Array.from({ length: 70 }, () => passwords.verify('any', 'of somebody'))
  const settled = Promise.allSettled(asked)
  expect(passwords.waiting()).toBe(64)
  gate.resolve()
  const refused = (await settled).filter((each) => each.status === 'rejected')
  expect(most).toBe(2)
  expect(passwords.waiting()).toBe(0)
  expect(refused).toHaveLength(70 - 2 - 64)
  for (const { reason } of refused) expect(reason).toMatchObject({ code: 'overloaded', retryAfterS: 2 })
  expect(await passwords.verify('any', 'of somebody')).toBe(true)
})

/** Hashes one at a time, each when `next` is called. `begun` says who had a turn, in order. */
function startOneCore() {
  const turns: (() => void)[] = []
  const begun: string[] = []
  const passwords = createPasswords(
    {
      hash: async () => 'of nobody',
      async verify(password) {
        begun.push(String(password))
        await new Promise<void>((resolve) => turns.push(resolve))
        return true
      },
    },
    1,
  )
  return {
    passwords,
    begun,
    ask: (lane: Asking['lane'], source: string) =>
      passwords.verify(lane, 'of somebody', { lane, source }).then(
        () => 'done',
        () => 'refused',
      ),
    async drain() {
      while (passwords.waiting() > 0 || turns.length > 0) {
        turns.shift()?.()
        await Bun.sleep(0)
      }
    },
  }
}

test('registrations from 110 addresses at once refuse no login, and a login waits for one of them at most', async () => {
  const { ask, begun, drain } = startOneCore()
  const registrations = Array.from({ length: 110 }, (_, n) => ask('registration', `198.51.100.${n}`))
  const logins = Array.from({ length: 3 }, (_, n) => ask('login', `192.0.2.${n}`))
  await drain()
  expect(await Promise.all(logins)).toEqual(['done', 'done', 'done'])
  expect(begun.indexOf('login')).toBeLessThanOrEqual(2)
  const answers = await Promise.all(registrations)
  expect(answers.filter((answer) => answer === 'done')).toHaveLength(1 + 8)
})

test('logins from 110 addresses at once refuse none from a known device, and these wait for two turns at most', async () => {
  const { ask, begun, drain } = startOneCore()
  const strangers = Array.from({ length: 110 }, (_, n) => ask('login', `198.51.100.${n}`))
  const known = Array.from({ length: 3 }, () => ask('known', '192.0.2.1'))
  await drain()
  expect(await Promise.all(known)).toEqual(['done', 'done', 'done'])
  expect(begun.slice(0, 7).filter((lane) => lane === 'known')).toHaveLength(3)
  expect((await Promise.all(strangers)).filter((answer) => answer === 'done')).toHaveLength(1 + 32)
})

test('while all wait, registrations have one turn in nine', async () => {
  const { ask, begun, drain } = startOneCore()
  const all = (['registration', 'login', 'known'] as const).flatMap((lane) =>
    Array.from({ length: 8 }, (_, n) => ask(lane, String(n))),
  )
  await drain()
  await Promise.all(all)
  expect(begun.slice(1, 10).filter((lane) => lane === 'registration')).toHaveLength(1)
})

test('registrations that come after many logins have one turn in five, and no turns to make up for', async () => {
  const { ask, begun, drain } = startOneCore()
  const before = Array.from({ length: 33 }, () => ask('login', 'one'))
  await drain()
  await Promise.all(before)
  begun.length = 0
  const after = Array.from({ length: 13 }, () => ask('login', 'one'))
  after.push(...Array.from({ length: 8 }, () => ask('registration', 'two')))
  await drain()
  await Promise.all(after)
  expect(begun.slice(1, 11).filter((lane) => lane === 'registration')).toHaveLength(2)
})
