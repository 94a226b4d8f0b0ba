import { describe, expect, test } from 'bun:test'
import { sign } from 'hono/jwt'
import type { Problem } from './problem.ts'
import { createTokenVerifier, type FindKey, remoteKeys } from './tokens.ts'

const ISSUER = 'https://issuer.example.com'

async function makeKey(kid: string) {
  const pair = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  const jwk = {
    ...(await crypto.subtle.exportKey('jwk', pair.privateKey)),
    kid,
    alg: 'EdDSA' as const,
    use: 'sig' as const,
  }
  const { d: _, ...published } = jwk
  return { jwk, published }
}

const nowS = () => Math.floor(Date.now() / 1000)
const claims = (more: object = {}) => ({
  iss: ISSUER,
  aud: 'posta',
  sub: 'u1',
  role: 'user',
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

describe('a verifier', () => {
  test('accepts a token of a published key until it expires, though it remembers it', async () => {
    const { jwk, published } = await makeKey('a')
    const server = keyServer([published])
    let nowMs = Date.now()
    const verify = verifier(server.findKey, () => nowMs)
    const token = await sign(claims(), jwk, 'EdDSA')
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
    const token = await sign(claims(), jwk, 'EdDSA')
    expect(await codeOf(verify(token))).toBe('keys-unavailable')
    server.serve([published])
    server.pass(2000)
    expect(await codeOf(verify(token))).toBe('accepted')
    expect(await codeOf(verify(await sign(claims({ aud: 'others' }), jwk, 'EdDSA')))).toBe('invalid-token')
  })

  test('fetches the keys again for an unknown id, but not more often than every 10 s', async () => {
    const [first, second] = [await makeKey('a'), await makeKey('b')]
    const server = keyServer([first.published])
    const verify = verifier(server.findKey)
    await verify(await sign(claims(), first.jwk, 'EdDSA'))
    server.serve([first.published, second.published])
    const token = await sign(claims(), second.jwk, 'EdDSA')
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
    await verify(await sign(claims(), jwk, 'EdDSA'))
    server.serve(undefined)
    server.pass(3_600_000)
    expect(await codeOf(verify(await sign(claims({ jti: '2' }), jwk, 'EdDSA')))).toBe('accepted')
    expect(server.fetches()).toBe(2)
  })

  test('takes no key that is not an Ed25519 signature key', async () => {
    const { jwk, published } = await makeKey('a')
    const server = keyServer([
      { ...published, use: 'enc' },
      { ...published, kty: 'oct', k: 'secret' },
    ])
    expect(await codeOf(verifier(server.findKey)(await sign(claims(), jwk, 'EdDSA')))).toBe('invalid-token')
  })
})
