import { afterAll, describe, expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { attempts } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { createMac } from './secret.ts'
import {
  type Counts,
  createThrottle,
  loginCounts,
  passwordCounts,
  registrationCounts,
  type Throttled,
} from './throttle.ts'

const MINUTE_MS = 60_000
const DAY_MS = 24 * 60 * MINUTE_MS

const opened = await openTemporary()
afterAll(opened.close)
const { database, writer } = opened

/** Gateways on one database, with a clock that only `pass` moves. Each call has a secret, and so counts, of its own. */
function start() {
  let nowMs = Date.now()
  const mac = createMac(crypto.randomUUID())
  let checks = 0
  const throttled: Throttled[] = []
  const gateway = () => {
    const throttle = createThrottle({
      database,
      mac,
      onThrottled: (by) => throttled.push(by),
      deps: { now: () => nowMs },
    })
    /** `right`, `wrong`, or for how many seconds it is refused. */
    return async (counts: Counts, isRight = false): Promise<string | number> => {
      try {
        using attempt = await throttle(counts)
        checks += 1
        await writer.write(isRight ? attempt.forget : [attempt.count])
        return isRight ? 'right' : 'wrong'
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'too-many-requests') throw error
        return error.retryAfterS ?? 'refused without a time'
      }
    }
  }
  const ask = gateway()
  return {
    gateway,
    ask,
    checks: () => checks,
    throttled,
    pass(ms: number) {
      nowMs += ms
    },
    logIn: (email: string, address: string, isRight = false) =>
      ask(loginCounts({ email, address, device: undefined }), isRight),
  }
}

const times = <Result>(count: number, make: (n: number) => Promise<Result>) =>
  Promise.all(Array.from({ length: count }, (_, n) => make(n)))

describe('wrong passwords', () => {
  test('for one email from one address: after ten, one more is allowed each minute, and no other address is refused', async () => {
    const { logIn, pass } = start()
    for (let n = 0; n < 10; n++) expect(await logIn('ana', '192.0.2.1')).toBe('wrong')
    expect(await logIn('ana', '192.0.2.1', true)).toBe(60)
    expect(await logIn('ana', '192.0.2.2', true)).toBe('right')
    expect(await logIn('other', '192.0.2.1')).toBe('wrong')
    pass(59_000)
    expect(await logIn('ana', '192.0.2.1')).toBe(1)
    pass(1_000)
    expect(await logIn('ana', '192.0.2.1')).toBe('wrong')
    expect(await logIn('ana', '192.0.2.1')).toBe(60)
  })

  test('of a botnet of 5 addresses for one email: 98 a day from each, 490 in all, and its owner is refused nowhere else', async () => {
    const { logIn, pass, checks } = start()
    const addresses = Array.from({ length: 5 }, (_, n) => `198.51.100.${n}`)
    const botnet = addresses.map((address) => ({ address, againAtMs: 0 }))
    for (let atMs = 0; atMs <= DAY_MS; ) {
      const attack = async (bot: (typeof botnet)[number]) => {
        while (bot.againAtMs <= atMs) {
          const answer = await logIn('ana', bot.address)
          if (typeof answer === 'number') bot.againAtMs = atMs + answer * 1000
        }
      }
      await Promise.all(botnet.map(attack))
      const next = Math.min(...botnet.map(({ againAtMs }) => againAtMs))
      pass(next - atMs)
      atMs = next
    }
    expect(checks()).toBe(5 * 98)
    expect(await logIn('ana', '203.0.113.1', true)).toBe('right')
  })

  test('for any emails from one address: after a hundred, one more is allowed each six seconds', async () => {
    const { logIn } = start()
    await times(100, (n) => logIn(`user${n}`, '192.0.2.1'))
    expect(await logIn('user', '192.0.2.1')).toBe(6)
    expect(await logIn('user', '::ffff:192.0.2.1')).toBe(6)
    expect(await logIn('user', '192.0.2.2')).toBe('wrong')
  })

  test('from the addresses of one IPv6 /48: 100 from a /64, 200 from a /56, 400 in all', async () => {
    const { logIn } = start()
    let n = 0
    const wrong = (address: string) => logIn(`user${n++}`, address)
    const passed = async (count: number, address: (n: number) => string) =>
      (await times(count, (index) => wrong(address(index)))).filter((answer) => answer === 'wrong').length
    expect(await passed(150, (index) => `2001:db8:1:100::${index.toString(16)}`)).toBe(100)
    expect(await passed(150, (index) => `2001:db8:1:1${(index + 1).toString(16).padStart(2, '0')}::1`)).toBe(100)
    expect(await passed(300, (index) => `2001:db8:1:${(0x200 + (index % 250) * 256).toString(16)}::1`)).toBe(200)
    expect(await wrong('2001:db8:2::1')).toBe('wrong')
  })

  test('from a known device count for that device alone', async () => {
    const { logIn, ask } = start()
    const from = (device: string) => loginCounts({ email: 'ana', address: '192.0.2.1', device })
    await times(10, () => logIn('ana', '192.0.2.1'))
    await times(100, (n) => logIn(`user${n}`, '192.0.2.1'))
    expect(await logIn('ana', '192.0.2.1', true)).toBeNumber()
    expect(await ask(from('phone'), true)).toBe('right')
    for (let n = 0; n < 10; n++) expect(await ask(from('laptop'))).toBe('wrong')
    expect(await ask(from('laptop'), true)).toBe(60)
    expect(await ask(from('phone'), true)).toBe('right')
  })

  test('of somebody who is logged in have a count of their own, in each network', async () => {
    const { logIn, ask } = start()
    const change = (address: string) => passwordCounts({ user: 'ana', address })
    await times(10, () => logIn('ana', '192.0.2.1'))
    for (let n = 0; n < 10; n++) expect(await ask(change('192.0.2.1'))).toBe('wrong')
    expect(await ask(change('192.0.2.1'), true)).toBe(60)
    expect(await ask(change('192.0.2.2'), true)).toBe('right')
  })

  test('in parallel get no further than the same ones in a row', async () => {
    const { logIn, checks } = start()
    const answers = await times(50, () => logIn('ana', '192.0.2.1'))
    expect(answers.filter((answer) => answer === 'wrong')).toHaveLength(10)
    expect(checks()).toBe(10)
  })

  test('count over all gateways, also after a restart; what two let through at once makes the next wait longer', async () => {
    const { gateway, ask, pass } = start()
    const counts = loginCounts({ email: 'ana', address: '192.0.2.1', device: undefined })
    const other = gateway()
    const answers = (await Promise.all([times(20, () => ask(counts)), times(20, () => other(counts))])).flat()
    const wrong = answers.filter((answer) => answer === 'wrong').length
    expect(wrong).toBeGreaterThanOrEqual(10)
    expect(wrong).toBeLessThanOrEqual(20)
    expect(await gateway()(counts)).toBe(60 * (wrong - 9))
    pass((wrong - 9) * MINUTE_MS)
    expect(await other(counts)).toBe('wrong')
    expect(await ask(counts)).toBe(60)
  })

  test('are forgotten with a right password, and not those of the network for other emails', async () => {
    const { logIn } = start()
    await times(9, () => logIn('ana', '192.0.2.1'))
    expect(await logIn('ana', '192.0.2.1', true)).toBe('right')
    await times(10, () => logIn('ana', '192.0.2.1'))
    expect(await logIn('ana', '192.0.2.1')).toBe(60)
    await times(81, (n) => logIn(`user${n}`, '192.0.2.1'))
    expect(await logIn('user', '192.0.2.1')).toBe(6)
  })
})

test('right passwords are never throttled, and an attempt that nobody counted does not count', async () => {
  const { logIn } = start()
  for (let n = 0; n < 200; n++) expect(await logIn('ana', '192.0.2.1', true)).toBe('right')
  const throttle = createThrottle({ database, mac: createMac('another'), onThrottled() {}, deps: { now: Date.now } })
  const counts = loginCounts({ email: 'ana', address: '192.0.2.1', device: undefined })
  for (let n = 0; n < 200; n++) (await throttle(counts))[Symbol.dispose]()
  await times(10, () => throttle(counts))
  await expect(throttle(counts)).rejects.toMatchObject({ code: 'too-many-requests' })
})

test('a refused attempt writes nothing, and is told of', async () => {
  const { logIn, throttled } = start()
  await times(10, () => logIn('ana', '192.0.2.1'))
  const before = await database.select().from(attempts)
  await times(20, () => logIn('ana', '192.0.2.1'))
  expect(await database.select().from(attempts)).toEqual(before)
  expect(throttled).toEqual(Array(20).fill({ what: 'login', email: 'ana', network: '192.0.2.0/24' }))
})

test('registrations from one address are bounded, however they end, and each hour has as many again', async () => {
  const { ask, pass } = start()
  const counts = registrationCounts('192.0.2.1', 20)
  await times(20, () => ask(counts))
  expect(await ask(counts)).toBe(180)
  expect(await ask(registrationCounts('192.0.2.2', 20))).toBe('wrong')
  pass(60 * MINUTE_MS)
  expect((await times(30, () => ask(counts))).filter((answer) => answer === 'wrong')).toHaveLength(20)
})

test('neither an email nor an address is stored', async () => {
  const { logIn } = start()
  await logIn('ana@example.com', '192.0.2.123')
  const stored = await database.select().from(attempts)
  expect(JSON.stringify(stored)).not.toMatch(/ana@|192\.0/)
  expect(stored.every(({ key }) => key.length === 22)).toBe(true)
})
