import { describe, expect, test } from 'bun:test'
import { type Credentials, parseBrokerUrl } from './broker-url.ts'

const addressOf = (url: string, credentials: Credentials = {}) => {
  const parsed = parseBrokerUrl(url, credentials)
  if ('fault' in parsed) throw new Error(parsed.fault)
  return parsed.address
}

describe('a broker URL', () => {
  test('reads hosts, ports and parameters', () => {
    const url = 'kafka://a.example:19092,b-1:9093,10.0.0.7?tls=true&sasl=scram-sha-512'
    expect(addressOf(url, { username: 'ana', password: 'secret' })).toEqual({
      kind: 'kafka',
      brokers: [
        { host: 'a.example', port: 19092 },
        { host: 'b-1', port: 9093 },
        { host: '10.0.0.7', port: 9092 },
      ],
      tls: true,
      sasl: 'scram-sha-512',
    })
  })

  test('without parameters there is neither TLS nor SASL', () => {
    expect(addressOf('kafka://localhost')).toEqual({
      kind: 'kafka',
      brokers: [{ host: 'localhost', port: 9092 }],
      tls: false,
      sasl: undefined,
    })
    expect(addressOf('kafka://localhost/?tls=false')).toEqual(addressOf('kafka://localhost'))
  })

  test('takes an IPv6 address in brackets, with and without a port', () => {
    expect(addressOf('kafka://[::1]:1234,[2001:db8::2]')).toMatchObject({
      brokers: [
        { host: '::1', port: 1234 },
        { host: '2001:db8::2', port: 9092 },
      ],
    })
  })

  test('a file URL names a path', () => {
    expect(addressOf('file:/var/lib/posta/broker.db')).toEqual({ kind: 'file', path: '/var/lib/posta/broker.db' })
    expect(addressOf('file:///var/lib/posta/broker.db')).toEqual({ kind: 'file', path: '/var/lib/posta/broker.db' })
  })

  test.each([
    ['redis://localhost', 'must be file:path or kafka://'],
    ['file:', 'must be file:path or kafka://'],
    ['kafka:localhost', 'must be file:path or kafka://'],
    ['kafka://localhost/topic', 'must be file:path or kafka://'],
    ['kafka://localhost#part', 'must be file:path or kafka://'],
    ['kafka://', 'every host'],
    ['kafka://a,,b', 'every host'],
    ['kafka://a:0', 'every host'],
    ['kafka://a:65536', 'every host'],
    ['kafka://a:port', 'every host'],
    ['kafka://::1:9092', 'every host'],
    ['kafka://[a.example]:9092', 'every host'],
    ['kafka://a?acks=1', 'unknown parameter, acks'],
    ['kafka://a?TLS=true', 'unknown parameter, TLS'],
    ['kafka://a?tls=true&tls=true', 'tls more than once'],
    ['kafka://a?tls=yes', 'tls must be true or false'],
    ['kafka://a?tls', 'tls must be true or false'],
    ['kafka://a?sasl=gssapi', 'sasl must be one of plain, scram-sha-256, scram-sha-512'],
    ['kafka://a?sasl=', 'sasl must be one of'],
    ['kafka://a?__proto__=1', 'unknown parameter, __proto__'],
  ])('%s is refused with its reason', (url, reason) => {
    expect(parseBrokerUrl(url, {})).toEqual({ fault: expect.stringMatching(/^BROKER_URL: /) })
    expect(parseBrokerUrl(url, {})).toEqual({ fault: expect.stringContaining(reason) })
  })

  test('credentials in the URL are refused without being repeated', () => {
    const parsed = parseBrokerUrl('kafka://me:hunter2@a:9092', {})
    expect(parsed).toEqual({ fault: expect.stringContaining('BROKER_USERNAME and BROKER_PASSWORD') })
    expect(JSON.stringify(parsed)).not.toContain('hunter2')
  })
})

describe('credentials', () => {
  const fault = (query: string, credentials: Credentials) => {
    const parsed = parseBrokerUrl(`kafka://a${query}`, credentials)
    return 'fault' in parsed ? parsed.fault : undefined
  }

  test('are both needed with SASL, and refused without', () => {
    expect(fault('?sasl=plain', { username: 'a', password: 'b' })).toBeUndefined()
    expect(fault('?sasl=plain', {})).toStartWith('BROKER_USERNAME and BROKER_PASSWORD: must be set')
    expect(fault('?sasl=plain', { username: 'a' })).toStartWith('BROKER_PASSWORD: must be set')
    expect(fault('', {})).toBeUndefined()
    expect(fault('', { password: 'b' })).toStartWith('BROKER_URL: must say sasl=')
  })

  test('may be set although a file needs none', () => {
    expect(addressOf('file:/a', { password: 'b' })).toEqual({ kind: 'file', path: '/a' })
  })
})
