import { describe, expect, test } from 'bun:test'
import { verifying } from 'hono/utils/jwt/jws'
import * as v from 'valibot'
import type { Problem } from './problem.ts'
import { createTokenVerifier, type FindKey, PublicKey, remoteKeys, signAccessToken, signJwt } from './tokens.ts'

const ISSUER = 'https://issuer.example.com'

async function makeKey(kid: string) {
  const pair = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  const exported = { ...(await crypto.subtle.exportKey('jwk', pair.privateKey)), kid, alg: 'EdDSA', use: 'sig' }
  const published = v.parse(PublicKey, exported)
  return { jwk: { ...published, d: exported.d ?? '' }, published }
}

const nowS = () => Math.floor(Date.now() / 1000)
const claims = (more: object = {}) => ({
  iss: ISSUER,
  aud: 'posta',
  sub: 'u1',
  role: 'user' as const,
  jti: '1',
  iat: nowS(),
  exp: nowS() + 900,
  ...more,
})

/** A key set's URL, whose answer the test decides, and a clock that stands. */
function keyServer(initial: readonly object[] | undefined) {
  let keys = initial
  let fetches = 0
  let nowMs = 0
  const findKey = remoteKeys({
    url: 'http://keys.test/jwks.json',
    deps: {
      monotonicMs: () => nowMs,
      fetch: Object.assign(
        async () => {
          fetches += 1
          return keys ? Response.json({ keys }) : new Response(null, { status: 500 })
        },
        { preconnect: () => {} },
      ),
    },
  })
  return {
    findKey,
    fetches: () => fetches,
    serve: (next: readonly object[] | undefined) => {
      keys = next
    },
    pass: (ms: number) => {
      nowMs += ms
    },
  }
}

const verifier = (findKey: FindKey, now = Date.now) => createTokenVerifier({ issuer: ISSUER, findKey, deps: { now } })
const codeOf = (result: Promise<unknown>) =>
  result.then(
    () => 'accepted',
    (error: Problem) => error.code,
  )

describe('the check of a signature, which the verifier has from hono and Bun,', async () => {
  const text = await Bun.file(new URL('../testing/ed25519-vectors.txt', import.meta.url)).text()
  const vectors = text.split('\n').filter((line) => line && !line.startsWith('#'))
  const bytes = (hex: string) => Buffer.from(hex === '-' ? '' : hex, 'hex')

  test('agrees with every Ed25519 vector of Wycheproof', async () => {
    const wrong: string[] = []
    for (const vector of vectors) {
      const [id = '', expected = '', key = '', message = '', signature = ''] = vector.split(' ')
      const x = bytes(key).toString('base64url')
      const jwk = v.parse(PublicKey, { kty: 'OKP', crv: 'Ed25519', x, kid: 'a', alg: 'EdDSA', use: 'sig' })
      const isValid = await verifying(jwk, 'EdDSA', bytes(signature), bytes(message)).catch(() => false)
      if (isValid !== (expected === 'valid')) wrong.push(`${id} is ${expected}`)
    }
    expect(vectors.filter((vector) => vector.includes(' invalid '))).toHaveLength(63)
    expect(wrong).toEqual([])
  })
})

describe('a verifier', () => {
  test('accepts a token of a published key until it expires, though it remembers it', async () => {
    const { jwk, published } = await makeKey('a')
    const server = keyServer([published])
    let nowMs = Date.now()
    const verify = verifier(server.findKey, () => nowMs)
    const token = signAccessToken(claims(), jwk)
    expect(await verify(token)).toEqual({ user: 'u1', role: 'user' })
    nowMs += 899_000
    expect(await codeOf(verify(token))).toBe('accepted')
    nowMs += 2000
    expect(await codeOf(verify(token))).toBe('invalid-token')
    expect(server.fetches()).toBe(1)
  })

  test('says 503 without any key set, and 401 for a bad token once there is one', async () => {
    const { jwk, published } = await makeKey('a')
    const server = keyServer(undefined)
    const verify = verifier(server.findKey)
    const token = signAccessToken(claims(), jwk)
    expect(await codeOf(verify(token))).toBe('keys-unavailable')
    server.serve([published])
    server.pass(2000)
    expect(await codeOf(verify(token))).toBe('accepted')
    expect(await codeOf(verify(signAccessToken(claims({ aud: 'others' }), jwk)))).toBe('invalid-token')
  })

  test('fetches the keys again for an unknown id, but not more often than every 10 s', async () => {
    const [first, second] = [await makeKey('a'), await makeKey('b')]
    const server = keyServer([first.published])
    const verify = verifier(server.findKey)
    await verify(signAccessToken(claims(), first.jwk))
    server.serve([first.published, second.published])
    const token = signAccessToken(claims(), second.jwk)
    for (let times = 0; times < 20; times++) expect(await codeOf(verify(token))).toBe('invalid-token')
    expect(server.fetches()).toBe(1)
    server.pass(10_000)
    expect(await codeOf(verify(token))).toBe('accepted')
    expect(server.fetches()).toBe(2)
  })

  test('goes on with the keys that it has while they cannot be fetched', async () => {
    const { jwk, published } = await makeKey('a')
    const server = keyServer([published])
    const verify = verifier(server.findKey)
    await verify(signAccessToken(claims(), jwk))
    server.serve(undefined)
    server.pass(3_600_000)
    expect(await codeOf(verify(signAccessToken(claims({ jti: '2' }), jwk)))).toBe('accepted')
    expect(server.fetches()).toBe(2)
  })

  test('refuses a token that it remembers within 40 s after its key left the set, whatever its `exp`', async () => {
    const [first, second] = [await makeKey('a'), await makeKey('b')]
    const server = keyServer([first.published, second.published])
    const verify = verifier(server.findKey)
    const tokens = Array.from({ length: 20 }, (_, n) => signAccessToken(claims({ jti: String(n) }), first.jwk))
    for (const token of tokens) expect(await codeOf(verify(token))).toBe('accepted')
    server.serve([second.published])
    server.pass(40_000)
    for (const token of tokens) expect(await codeOf(verify(token))).toBe('invalid-token')
    expect(await codeOf(verify(signAccessToken(claims(), second.jwk)))).toBe('accepted')
  })

  test('refuses a token that it remembers once its key id has another key', async () => {
    const [first, second] = [await makeKey('a'), await makeKey('a')]
    const server = keyServer([first.published])
    const verify = verifier(server.findKey)
    const token = signAccessToken(claims(), first.jwk)
    expect(await codeOf(verify(token))).toBe('accepted')
    server.serve([second.published])
    server.pass(40_000)
    expect(await codeOf(verify(token))).toBe('invalid-token')
  })

  test('refuses what a stolen key signs for longer than 15 minutes, for later, or as another type of token', async () => {
    const { jwk, published } = await makeKey('a')
    const verify = verifier(keyServer([published]).findKey)
    const forged = [
      signAccessToken(claims({ exp: nowS() + 10 * 365 * 86_400 }), jwk),
      signAccessToken(claims({ exp: nowS() + 901 }), jwk),
      signAccessToken(claims({ iat: nowS() + 86_400, exp: nowS() + 86_400 + 900 }), jwk),
      signAccessToken(claims({ iat: nowS() + 120 }), jwk),
      signAccessToken(claims({ iat: -1e300 }), jwk),
      signAccessToken(claims({ iat: nowS() + 0.5 }), jwk),
      signAccessToken(claims({ exp: Number.NaN }), jwk),
      signJwt('JWT', claims(), jwk),
      signJwt('posta-checkpoint+jwt', claims(), jwk),
      signJwt('', claims(), jwk),
    ]
    for (const token of forged) expect(await codeOf(verify(token))).toBe('invalid-token')
  })

  test('takes a token of a clock that is half a minute ahead', async () => {
    const { jwk, published } = await makeKey('a')
    const token = signAccessToken(claims({ iat: nowS() + 30 }), jwk)
    expect(await codeOf(verifier(keyServer([published]).findKey)(token))).toBe('accepted')
  })

  test('takes a token in one spelling alone, before and after it is remembered', async () => {
    const { jwk, published } = await makeKey('a')
    const verify = verifier(keyServer([published]).findKey)
    const token = signAccessToken(claims(), jwk)
    // The last of 86 characters for 64 bytes has four bits that mean nothing.
    const unused = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const last = unused.indexOf(token.slice(-1))
    const others = Array.from({ length: 15 }, (_, n) => token.slice(0, -1) + unused[last + n + 1])
    const spellings = [`${token}=`, `${token}==`, ` ${token}`, `${token}\n`, token.replace('.', '=.'), ...others]
    for (let times = 0; times < 2; times += 1) {
      for (const spelling of spellings) expect(await codeOf(verify(spelling))).toBe('invalid-token')
      expect(await codeOf(verify(token))).toBe('accepted')
    }
  })

  // After Wycheproof's vectors for JSON web signatures, which have none for EdDSA: what each does to a good token.
  test('refuses a token with a part changed, left out or added, or that brings its own key or no algorithm', async () => {
    const [{ jwk, published }, other] = [await makeKey('a'), await makeKey('a')]
    const verify = verifier(keyServer([published]).findKey)
    const [header = '', payload = '', signature = ''] = signAccessToken(claims(), jwk).split('.')
    const part = (content: object) => Buffer.from(JSON.stringify(content)).toString('base64url')
    const headed = (more: object) => part({ alg: 'EdDSA', typ: 'at+jwt', kid: 'a', ...more })
    const hmac = (head: string) =>
      new Bun.CryptoHasher('sha256', Buffer.from(published.x, 'base64url')).update(`${head}.${payload}`)
    const [, , others = ''] = signAccessToken(claims(), other.jwk).split('.')
    const bad = [
      '',
      '..',
      header,
      `${header}.${payload}`,
      `${header}.${payload}.`,
      `${header}..${signature}`,
      `.${payload}.${signature}`,
      `${payload}.${signature}`,
      `${header}.${payload}.${signature}.`,
      `${header}.${payload}.${signature}.${signature}`,
      `${header}.${payload}.${signature.startsWith('X') ? 'Y' : 'X'}${signature.slice(1)}`,
      `${header}.${part(claims({ role: 'operator' }))}.${signature}`,
      `${headed({ extra: 1 })}.${payload}.${signature}`,
      `${headed({ alg: 'none' })}.${payload}.`,
      `${headed({ alg: 'HS256' })}.${payload}.${hmac(headed({ alg: 'HS256' })).digest('base64url')}`,
      `${headed({ jwk: other.published })}.${payload}.${others}`,
      JSON.stringify({ protected: header, payload, signature }),
    ]
    for (const token of bad) expect(await codeOf(verify(token))).toBe('invalid-token')
    expect(await codeOf(verify(`${header}.${payload}.${signature}`))).toBe('accepted')
  })

  test('takes no key that is not an Ed25519 signature key', async () => {
    const { jwk, published } = await makeKey('a')
    const server = keyServer([
      { ...published, use: 'enc' },
      { ...published, kty: 'oct', k: 'secret' },
    ])
    expect(await codeOf(verifier(server.findKey)(signAccessToken(claims(), jwk)))).toBe('invalid-token')
  })
})
