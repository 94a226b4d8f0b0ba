import { expect, test } from 'bun:test'
import { Problem } from '@posta/common/service/problem.ts'
import { createThrottle, networkOf } from './throttle.ts'

function start() {
  let nowMs = 0
  const throttle = createThrottle({ monotonicMs: () => nowMs })
  let checks = 0
  return {
    pass(ms: number) {
      nowMs += ms
    },
    checks: () => checks,
    /** `right`, `wrong`, or for how many seconds it is refused. */
    async attempt(email: string, address: string, isRight = false): Promise<string | number> {
      try {
        const right = await throttle({ email, address }, async () => {
          checks += 1
          await Promise.resolve()
          return isRight
        })
        return right ? 'right' : 'wrong'
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'too-many-requests') throw error
        return error.retryAfterS ?? 'refused without a time'
      }
    },
    throttle,
  }
}

const times = <Result>(count: number, make: (n: number) => Promise<Result>) =>
  Promise.all(Array.from({ length: count }, (_, n) => make(n)))

test('after ten wrong passwords for an email, from any address, one more is allowed each minute', async () => {
  const { attempt, pass } = start()
  for (let n = 0; n < 10; n++) expect(await attempt('ana', `192.0.2.${n}`)).toBe('wrong')
  expect(await attempt('ana', '192.0.2.99', true)).toBe(60)
  expect(await attempt('other', '192.0.2.1')).toBe('wrong')
  pass(59_000)
  expect(await attempt('ana', '192.0.2.99')).toBe(1)
  pass(1_000)
  expect(await attempt('ana', '192.0.2.99')).toBe('wrong')
  expect(await attempt('ana', '192.0.2.99')).toBe(60)
})

test('parallel attempts get no further than the same attempts in a row', async () => {
  const { attempt, checks } = start()
  const answers = await times(50, () => attempt('ana', '192.0.2.1'))
  expect(answers.filter((answer) => answer === 'wrong')).toHaveLength(10)
  expect(checks()).toBe(10)
})

test('a right password clears the count of its email, and not that of the address', async () => {
  const { attempt } = start()
  await times(9, () => attempt('ana', '192.0.2.1'))
  expect(await attempt('ana', '192.0.2.1', true)).toBe('right')
  await times(10, () => attempt('ana', '192.0.2.1'))
  expect(await attempt('ana', '192.0.2.1')).toBe(60)
  await times(81, (n) => attempt(`user${n}`, '192.0.2.1'))
  expect(await attempt('user', '192.0.2.1')).toBe(6)
  expect(await attempt('user', '192.0.2.2')).toBe('wrong')
})

test('right passwords are never throttled, and an attempt whose check fails does not count', async () => {
  const { attempt, throttle } = start()
  for (let n = 0; n < 200; n++) expect(await attempt('ana', '192.0.2.1', true)).toBe('right')
  for (let n = 0; n < 200; n++) {
    const failing = throttle({ email: 'ana', address: '192.0.2.1' }, () => Promise.reject(new Error('too busy')))
    await expect(failing).rejects.toThrow('too busy')
  }
  expect(await attempt('ana', '192.0.2.1')).toBe('wrong')
})

test('attempts whose check fails, however many, do not push out the count of an email', async () => {
  const { attempt, throttle } = start()
  await times(10, (n) => attempt('ana', `192.0.2.${n}`))
  const busy = new Error('too busy')
  for (let n = 0; n < 50_001; n++)
    await throttle({ email: `user${n}`, address: '198.51.100.1' }, () => Promise.reject(busy)).catch(() => {})
  expect(await attempt('ana', '192.0.2.99')).toBe(60)
})

test('the addresses of one IPv6 /64 count as one', async () => {
  expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2')
  expect(networkOf('2001:0DB8:0001:0002::1')).toBe('2001:db8:1:2')
  expect(networkOf('2001:db8::9')).toBe('2001:db8:0:0')
  expect(networkOf('::1')).toBe('0:0:0:0')
  expect(networkOf('::ffff:192.0.2.1')).toBe('192.0.2.1')
  expect(networkOf('192.0.2.1')).toBe('192.0.2.1')
  expect(networkOf('')).toBe('')
})
