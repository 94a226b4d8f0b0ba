import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { createHmac, generateKeyPairSync, sign as signBytes } from 'node:crypto'
import * as v from 'valibot'
import { sample } from '../../common/testing/sample.ts'
import { type Answer, call, expectBody, graphql } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { embeddedParts, type Parts } from '../testing/parts.ts'
import { addOperator, logIn, newUser, PASSWORD } from '../testing/users.ts'

const ours = generateKeyPairSync('ed25519')
const theirs = generateKeyPairSync('ed25519')
const KID = 'the-key'

let parts: Parts
let urls: System
let token: string

beforeAll(async () => {
  parts = await embeddedParts()
  const keys = [{ ...ours.privateKey.export({ format: 'jwk' }), kid: KID, alg: 'EdDSA', use: 'sig' }]
  urls = await startInProcess({ ...parts.environment, TOKEN_KEYS: JSON.stringify({ keys }) })
  token = (await newUser(urls.gatewayUrl)).token
}, 60_000)
afterAll(async () => {
  await urls.close()
  await parts.dispose()
})

const operationsUrl = () => `${urls.gatewayUrl}/operations`

/** Sends exactly this body and these headers. */
async function raw(
  body: string,
  headers: Record<string, string>,
  path = '/operations',
  method = 'POST',
): Promise<Answer> {
  const response = await fetch(`${urls.gatewayUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, ...headers },
    body,
  })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

const json = { 'content-type': 'application/json' }

function expectProblem(answer: Answer, status: number, code: string): void {
  expect({ status: answer.status, type: answer.headers.get('content-type'), body: answer.body }).toMatchObject({
    status,
    type: 'application/problem+json',
    body: { code, type: `/problems/${code}`, status },
  })
}

describe('a submission that is refused changes nothing and says why', () => {
  const { wrong } = sample
  const submissionOf = (input: object = sample.input()) => ({ type: sample.type, input })
  const cases: [string, unknown, number, string, string][] = [
    ['a member that does not fit', submissionOf(wrong.input), 422, 'invalid-input', `#/input/${wrong.member}`],
    [
      'an unknown member of the input',
      submissionOf({ ...sample.input(), memo: 'x' }),
      422,
      'invalid-input',
      '#/input/memo',
    ],
    ['an unknown member beside it', { ...submissionOf(), user: 'someone' }, 422, 'invalid-input', '#/user'],
    ['an unknown type', { type: 'transfer', input: {} }, 422, 'invalid-input', '#/type'],
    ['a type of the prototype', { type: 'constructor', input: {} }, 422, 'invalid-input', '#/type'],
    ['no input', { type: sample.type }, 422, 'invalid-input', '#/input'],
    ['an array', [], 422, 'invalid-input', '#/type'],
    ['null', null, 422, 'invalid-input', '#'],
  ]
  test.each(cases)('%s', async (_name, body, status, code, pointer) => {
    const answer = await raw(JSON.stringify(body), { ...json, 'idempotency-key': 'unused' })
    expectProblem(answer, status, code)
    expect(answer.body).toMatchObject({ errors: [{ pointer }] })
    expect(JSON.stringify(answer.body).length).toBeLessThan(2000)
  })

  test('malformed JSON is 400, another content type 415, more than 64 KiB 413', async () => {
    expectProblem(await raw('{"type":', json), 400, 'malformed-request')
    expectProblem(await raw('', json), 400, 'malformed-request')
    expectProblem(await raw('{}', { 'content-type': 'text/plain' }), 415, 'unsupported-media-type')
    expectProblem(
      await raw(`type=${sample.type}`, { 'content-type': 'application/x-www-form-urlencoded' }),
      415,
      'unsupported-media-type',
    )
    expectProblem(await raw(JSON.stringify({ type: 'x'.repeat(70_000) }), json), 413, 'payload-too-large')
    expectProblem(await raw(JSON.stringify({ query: 'x'.repeat(70_000) }), json, '/graphql'), 413, 'payload-too-large')
  })

  test.each(['x'.repeat(256), 'has space', 'ä'])('the idempotency key %s is refused', async (key) => {
    const answer = await raw(JSON.stringify(submissionOf()), {
      ...json,
      'idempotency-key':
        encodeURIComponent(key) === key || key.includes(' ') ? key : Buffer.from(key).toString('latin1'),
    })
    expectProblem(answer, 400, 'malformed-request')
  })

  test('no refused submission used its key up or left an operation', async () => {
    expect(await call('GET', operationsUrl(), { token })).toMatchObject({ status: 200, body: { items: [] } })
  })

  test('GraphQL refuses the same with the same codes, and does not repeat the refused value', async () => {
    const secret = 'not to be repeated'
    const mutation = `mutation ($input: ${sample.graphql.input}!) { ${sample.type}(input: $input) { id } }`
    const asked: [string, Record<string, unknown>, string][] = [
      [mutation, { input: wrong.input }, 'invalid-input'],
      [mutation, { input: { ...sample.input(), memo: secret } }, 'malformed-request'],
      [mutation, { input: { ...sample.input(), [wrong.member]: 1 } }, 'malformed-request'],
      [
        'mutation ($input: LoginInput!) { login(input: $input) { accessToken } }',
        { input: { email: 'a@example.com', password: { secret } } },
        'malformed-request',
      ],
      [
        'mutation ($input: RegisterInput!) { register(input: $input) { id } }',
        { input: { email: secret, password: secret } },
        'invalid-input',
      ],
      ['{ operation(id: "nothing") { id } }', {}, 'not-found'],
      ['{ operations(first: 0) { edges { cursor } } }', {}, 'invalid-input'],
      ['{ operations(after: "nonsense") { edges { cursor } } }', {}, 'malformed-request'],
      ['{ nonsense }', {}, 'malformed-request'],
      ['{ me { ', {}, 'malformed-request'],
      [`{ ${Array.from({ length: 11 }, (_, index) => `a${index}: me { id }`).join(' ')} }`, {}, 'malformed-request'],
    ]
    for (const [query, variables, code] of asked) {
      const { body } = await graphql(urls.gatewayUrl, query, variables, token)
      expect({ query, body }).toMatchObject({ query, body: { errors: [{ extensions: { code } }] } })
      expect(JSON.stringify(body)).not.toContain(secret)
    }
    expect((await graphql(urls.gatewayUrl, '{ me { id } }')).body).toMatchObject({
      errors: [{ extensions: { code: 'invalid-token' } }],
    })
  })
})

describe('lists refuse', () => {
  test.each(['limit=0', 'limit=101', 'limit=-1', 'limit=ten', 'limit=1&limit=2', 'unknown=1'])(
    '%s, 422',
    async (query) => {
      for (const url of [operationsUrl(), `${urls.processorUrl}/results`, `${urls.monitorUrl}/events`])
        expectProblem(await call('GET', `${url}?${query}`, { token }), 422, 'invalid-input')
    },
  )
  test.each(['nonsense', 'bnVsbA', Buffer.from('{"a":1}').toString('base64url'), 'x'.repeat(600)])(
    'the cursor %s, 400',
    async (cursor) => {
      for (const url of [operationsUrl(), `${urls.processorUrl}/results`, `${urls.monitorUrl}/events`])
        expectProblem(await call('GET', `${url}?cursor=${cursor}`, { token }), 400, 'malformed-request')
    },
  )
})

describe('paths', () => {
  test('an id that does not exist is 404; a method that a path does not have is 405 with Allow', async () => {
    for (const id of ['x', '..%2f..%2fetc', "'; DROP TABLE operations; --", '%00'])
      expect((await call('GET', `${operationsUrl()}/${id}`, { token })).status).toBe(404)
    const answer = await raw('{}', json, '/operations', 'PUT')
    expectProblem(answer, 405, 'method-not-allowed')
    expect(answer.headers.get('allow')).toContain('POST')
  })
})

describe('tokens:', () => {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const nowS = Math.floor(Date.now() / 1000)
  const header = { alg: 'EdDSA', typ: 'at+jwt', kid: KID }
  let operator: string
  beforeAll(async () => {
    const { accessToken } = await logIn(urls.gatewayUrl, await addOperator(parts.environment))
    const me = await call('GET', `${urls.gatewayUrl}/auth/me`, { token: accessToken })
    operator = expectBody(me, 200, v.object({ id: v.string() })).id
  })
  const claims = () => ({
    iss: urls.gatewayUrl,
    aud: 'posta',
    sub: operator,
    role: 'operator',
    jti: '1',
    iat: nowS,
    exp: nowS + 600,
  })
  const signed = (head: object, body: object, key = ours.privateKey) => {
    const text = `${part(head)}.${part(body)}`
    return `${text}.${signBytes(null, Buffer.from(text), key).toString('base64url')}`
  }
  const without = (name: string) => Object.fromEntries(Object.entries(claims()).filter(([each]) => each !== name))
  const forged: [string, () => string][] = [
    ['has expired', () => signed(header, { ...claims(), exp: nowS - 1 })],
    ['never expires', () => signed(header, without('exp'))],
    ['is of another issuer', () => signed(header, { ...claims(), iss: 'https://example.com' })],
    ['is for another audience', () => signed(header, { ...claims(), aud: 'others' })],
    ['has no subject', () => signed(header, without('sub'))],
    ['has a role that does not exist', () => signed(header, { ...claims(), role: 'root' })],
    ['is not signed', () => `${part({ ...header, alg: 'none' })}.${part(claims())}.`],
    ['has no signature, but names an algorithm', () => `${part(header)}.${part(claims())}.`],
    [
      'is signed by HS256 with the public key',
      () => {
        const text = `${part({ ...header, alg: 'HS256' })}.${part(claims())}`
        const secret = ours.publicKey.export({ type: 'spki', format: 'pem' })
        return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`
      },
    ],
    [
      'is signed by HS256 with the public key’s x',
      () => {
        const text = `${part({ ...header, alg: 'HS256' })}.${part(claims())}`
        return `${text}.${createHmac('sha256', ours.publicKey.export({ format: 'jwk' }).x ?? '')
          .update(text)
          .digest('base64url')}`
      },
    ],
    ['is signed by another key', () => signed(header, claims(), theirs.privateKey)],
    ['names a key that does not exist', () => signed({ ...header, kid: 'theirs' }, claims(), theirs.privateKey)],
    [
      'contains its own key',
      () =>
        signed(
          { ...header, kid: 'theirs', jwk: theirs.publicKey.export({ format: 'jwk' }) },
          claims(),
          theirs.privateKey,
        ),
    ],
    ['is of no type', () => signed({ alg: 'EdDSA', kid: KID }, claims())],
    ['is of another type', () => signed({ ...header, typ: 'JWT' }, claims())],
    ['lives longer than 15 minutes', () => signed(header, { ...claims(), exp: nowS + 3600 })],
    ['is of tomorrow', () => signed(header, { ...claims(), iat: nowS + 86_400, exp: nowS + 86_700 })],
    ['has padding', () => `${signed(header, claims())}=`],
    ['names no key', () => signed({ alg: 'EdDSA', typ: 'at+jwt' }, claims())],
    [
      'has a payload that was changed',
      () => signed(header, { ...claims(), role: 'user' }).replace(/\.[^.]+\./, `.${part(claims())}.`),
    ],
    ['is not a token', () => 'nonsense'],
    ['has 5000 characters', () => 'x'.repeat(5000)],
  ]
  test.each(forged)('every service refuses one that %s', async (_name, make) => {
    const bad = make()
    for (const url of [
      operationsUrl(),
      `${urls.processorUrl}/results`,
      `${urls.monitorUrl}/stats`,
      `${urls.gatewayUrl}/auth/me`,
    ]) {
      const answer = await call('GET', url, { token: bad })
      expectProblem(answer, 401, 'invalid-token')
      expect(answer.headers.get('www-authenticate')).toStartWith('Bearer')
      expect(JSON.stringify(answer.body)).not.toContain(bad)
    }
  })

  test('every service accepts a correct one', async () => {
    const good = signed(header, claims())
    for (const url of [operationsUrl(), `${urls.processorUrl}/results`, `${urls.monitorUrl}/stats`])
      expect((await call('GET', url, { token: good })).status).toBe(200)
  })

  test('gateway refuses a request without a Bearer token', async () => {
    expectProblem(await call('GET', operationsUrl()), 401, 'invalid-token')
    for (const authorization of ['', 'Basic YTpi', 'Bearer', `Token ${token}`])
      expectProblem(await call('GET', operationsUrl(), { headers: { authorization } }), 401, 'invalid-token')
  })
})

describe('accounts', () => {
  const post = (path: string, body: unknown) => call('POST', `${urls.gatewayUrl}/auth/${path}`, { body })
  test('registration refuses a bad email, a bad password, and an email that is taken in any case', async () => {
    for (const email of ['', 'nobody', 'a@', '@b', `${'a'.repeat(260)}@example.com`, 5])
      expectProblem(await post('register', { email, password: PASSWORD }), 422, 'invalid-input')
    for (const bad of ['', '14 characters!', 'x'.repeat(257), 'passwordpassword', 5])
      expectProblem(await post('register', { email: 'new@example.com', password: bad }), 422, 'invalid-input')
    expect((await post('register', { email: 'Case@Example.com', password: PASSWORD })).status).toBe(201)
    expectProblem(await post('register', { email: 'cASE@example.COM', password: PASSWORD }), 409, 'email-taken')
    expectProblem(
      await post('register', { email: 'x@example.com', password: PASSWORD, role: 'operator' }),
      422,
      'invalid-input',
    )
  })

  test('a login answers an unknown user and a wrong password alike, and 429 after too many attempts', async () => {
    await post('register', { email: 'known@example.com', password: PASSWORD })
    const wrong = await post('login', { email: 'known@example.com', password: 'wrong' })
    const unknown = await post('login', { email: 'unknown@example.com', password: 'wrong' })
    expectProblem(wrong, 401, 'invalid-credentials')
    expect(unknown.body).toEqual(wrong.body)
    let last = wrong
    for (let tries = 0; tries < 20 && last.status === 401; tries++)
      last = await post('login', { email: 'known@example.com', password: 'wrong' })
    expectProblem(last, 429, 'too-many-requests')
    expect(Number(last.headers.get('retry-after'))).toBeGreaterThan(0)
  }, 30_000)
})
