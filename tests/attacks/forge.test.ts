import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { signAccessToken, signJwt } from '../../common/service/tokens.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { createKeyEncryption } from '../../gateway/accounts/key-encryption.ts'
import { call, expectBody, Tokens } from '../../tools/client.ts'
import { describeLong, embeddedParts, type Parts } from '../testing/parts.ts'
import { runProgram } from '../testing/run-program.ts'
import { type ServiceProcess, serviceProcesses } from '../testing/service-processes.ts'
import { newUser, type User } from '../testing/users.ts'

const KEY_ENCRYPTION_KEY = randomBytes(32)
const METRICS_TOKEN = 'only-for-the-one-who-reads'
const REVOKED_WITHIN_MS = 60_000

describeLong('an attacker who forges tokens', () => {
  let parts: Parts
  let environment: Parts['environment']
  let services: readonly ServiceProcess[]
  let urls: readonly string[]
  let user: User

  beforeAll(async () => {
    parts = await embeddedParts()
    environment = {
      ...parts.environment,
      DATA_DIR: join(parts.dataDir, 'data'),
      KEY_ENCRYPTION_KEY: KEY_ENCRYPTION_KEY.toString('base64'),
      METRICS_TOKEN,
    }
    const { gateway, processor, monitor } = await serviceProcesses(environment)
    services = [gateway, processor, monitor]
    urls = services.map(({ url }) => url)
    for (const service of services) await service.start()
    user = await newUser(gateway.url)
  }, 120_000)
  afterAll(async () => {
    for (const service of services) await service.stop('SIGTERM')
    await parts.dispose()
  }, 60_000)

  const statusesOf = (token: string) =>
    Promise.all(
      ['/auth/me', '/results', '/events'].map(
        async (path, index) => (await call('GET', urls[index] + path, { token })).status,
      ),
    )

  /** The key that gateway signs with, for whoever has both its database and KEY_ENCRYPTION_KEY. */
  async function stealKey() {
    using database = new Database(join(environment.DATA_DIR ?? '', 'gateway.db'), { readonly: true })
    const row = database
      .query<{ kid: string; private_jwk: string }, []>("SELECT * FROM signing_keys WHERE status = 'current'")
      .get()
    const encryption = await createKeyEncryption([new Uint8Array(KEY_ENCRYPTION_KEY)])
    return encryption.open(row?.kid ?? '', JSON.parse(row?.private_jwk ?? '{}'))
  }

  const claims = (more: object = {}) => {
    const iat = Math.floor(Date.now() / 1000)
    const own = { iss: urls[0] ?? '', aud: 'posta', sub: user.id, role: 'user' as const, jti: crypto.randomUUID() }
    return { ...own, iat, exp: iat + 900, ...more }
  }

  test('with one good token has no second spelling of it: all three services refuse 20', async () => {
    const { token } = user
    expect(await statusesOf(token)).toEqual([200, 200, 200])
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const last = alphabet.indexOf(token.slice(-1))
    const spellings = Array.from({ length: 15 }, (_, n) => token.slice(0, -1) + alphabet[last + n + 1])
    const padded = [`${token}=`, `${token}==`, `${token}===`, token.replace('.', '=.'), token.replace('.', '==.')]
    for (const spelling of [...spellings, ...padded]) expect(await statusesOf(spelling)).toEqual([401, 401, 401])
  })

  test('with a copy of every file of DATA_DIR has no key that signs, and other users of the machine have no copy', async () => {
    const folder = environment.DATA_DIR ?? ''
    const files = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'latin1'))
    const { d, kid } = await stealKey()
    expect(files.some((bytes) => bytes.includes(kid))).toBe(true)
    for (const bytes of files) {
      expect(bytes).not.toContain(d)
      expect(bytes).not.toMatch(/"d":"[\w-]{43}"/)
    }
    expect(statSync(folder).mode & 0o777).toBe(0o700)
  })

  test('with the signing key makes no token that outlives 15 minutes, starts later, or is of another type', async () => {
    const key = await stealKey()
    expect(await statusesOf(signAccessToken(claims(), key))).toEqual([200, 200, 200])
    const { iat } = claims()
    const forged = [
      signAccessToken(claims({ exp: iat + 10 * 365 * 86_400 }), key),
      signAccessToken(claims({ iat: iat + 86_400, exp: iat + 86_400 + 900 }), key),
      signJwt('JWT', claims(), key),
    ]
    for (const token of forged) expect(await statusesOf(token)).toEqual([401, 401, 401])
    // Gateway goes by the role that its database has.
    const [atGateway] = await statusesOf(signAccessToken(claims({ role: 'operator' }), key))
    expect(atGateway).toBe(401)
  })

  test('with the signing key and 50 tokens that every service has seen is out 60 s after keys revoke; users refresh', async () => {
    const key = await stealKey()
    const tokens = Array.from({ length: 50 }, () => signAccessToken(claims(), key))
    for (const token of tokens) expect(await statusesOf(token)).toEqual([200, 200, 200])
    const { code, out } = await runProgram(['gateway/tools/keys.ts', 'revoke', key.kid], { environment })
    expect([code, out]).toEqual([0, expect.stringContaining(`${key.kid} is revoked`)])
    const revokedMs = performance.now()
    await eventually(async () => {
      await Bun.sleep(250)
      const answers = await Promise.all(tokens.map(statusesOf))
      return answers.flat().every((status) => status === 401)
    }, REVOKED_WITHIN_MS)
    expect(performance.now() - revokedMs).toBeLessThan(REVOKED_WITHIN_MS)
    // A token that none has seen.
    expect(await statusesOf(signAccessToken(claims(), key))).toEqual([401, 401, 401])

    const { refreshToken } = user
    const refreshed = await call('POST', `${urls[0]}/auth/refresh`, { body: { refreshToken } })
    expect(await statusesOf(expectBody(refreshed, 200, Tokens).accessToken)).toEqual([200, 200, 200])
  }, 120_000)

  test('without a token reads no metrics, and reaches no service by a second Host header', async () => {
    for (const url of urls) {
      expect((await call('GET', `${url}/metrics`)).status).toBe(401)
      expect((await call('GET', `${url}/metrics`, { token: user.token })).status).toBe(401)
      expect((await call('GET', `${url}/metrics`, { token: METRICS_TOKEN })).status).toBe(200)
      const socket = connect(Number(new URL(url).port), '127.0.0.1')
      socket.write('GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\nConnection: close\r\n\r\n')
      let answer = ''
      for await (const chunk of socket) answer += String(chunk)
      expect(answer).toStartWith('HTTP/1.1 400 ')
    }
  })
})
