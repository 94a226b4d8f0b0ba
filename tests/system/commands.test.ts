import { afterAll, beforeAll, expect, test } from 'bun:test'
import * as v from 'valibot'
import { systemDeps } from '../../common/service/deps.ts'
import { askUntil, call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { describeLong, embeddedParts, type Parts } from '../testing/parts.ts'
import { runProgram } from '../testing/run-program.ts'
import { logIn, newOperator, newUser, PASSWORD } from '../testing/users.ts'

const NEW_PASSWORD = `${PASSWORD} of late`

describeLong('commands take effect while the system runs:', () => {
  let parts: Parts
  let system: System
  let skippedMs = 0

  beforeAll(async () => {
    parts = await embeddedParts()
    const deps = { ...systemDeps, monotonicMs: () => performance.now() + skippedMs }
    system = await startInProcess(parts.environment, deps)
  }, 30_000)
  afterAll(async () => {
    await system.close()
    await parts.dispose()
  }, 30_000)

  async function run(command: 'users' | 'keys', ...words: readonly string[]): Promise<string> {
    const options = { environment: parts.environment, input: `${NEW_PASSWORD}\n` }
    const { code, out, error } = await runProgram([`gateway/tools/${command}.ts`, ...words], options)
    expect({ code, error }).toEqual({ code: 0, error: '' })
    return out
  }

  const statusesOf = (token: string) =>
    Promise.all(
      [`${system.gatewayUrl}/auth/me`, `${system.processorUrl}/results`, `${system.monitorUrl}/events`].map(
        async (url) => (await call('GET', url, { token })).status,
      ),
    )

  test('after a key rotation all services accept tokens of the old key and of each new one', async () => {
    const { gatewayUrl, monitorUrl } = system
    const [before, early, user] = [await newUser(gatewayUrl), await newUser(gatewayUrl), await newUser(gatewayUrl)]
    // Processor and monitor fetch the current key and the next one.
    expect(await statusesOf(before.token)).toEqual([200, 200, 200])
    const kids = [keyOf(before.token)]
    for (const rotation of [1, 2]) {
      const kid = (await run('keys', 'rotate')).split(' ')[0] ?? ''
      skippedMs += SEEN_WITHIN_MS
      const { accessToken } = await logIn(gatewayUrl, user.email)
      expect(keyOf(accessToken)).toBe(kid)
      kids.push(kid)
      // The second rotation's key is new to processor and monitor.
      expect(await statusesOf(accessToken)).toEqual([200, 200, 200])
      // A token of the previous key that no service has seen yet.
      if (rotation === 1) expect(await statusesOf(early.token)).toEqual([200, 200, 200])
    }
    expect(new Set(kids).size).toBe(3)
    // Two rotations end a key: no service accepts a token of it, also not one that it has seen before.
    expect(await statusesOf(user.token)).toEqual([401, 401, 401])
    expect(await statusesOf(before.token)).toEqual([401, 401, 401])

    const operator = await newOperator(parts.environment, gatewayUrl)
    const Events = v.object({ items: v.array(v.object({ data: v.object({ kid: v.string() }) })) })
    const rotated = await askUntil(
      () => call('GET', `${monitorUrl}/events?type=posta.key.rotated`, { token: operator }),
      (answer) => expectBody(answer, 200, Events).items.length === 2,
    )
    expect(expectBody(rotated, 200, Events).items.map(({ data }) => data.kid)).toEqual(kids.slice(1).reverse())
  }, 30_000)

  test('a user can be made operator, given another password, and disabled', async () => {
    const { gatewayUrl, monitorUrl } = system
    const { email, token, refreshToken } = await newUser(gatewayUrl)
    const refresh = () => call('POST', `${gatewayUrl}/auth/refresh`, { body: { refreshToken } })
    const logInAs = (password: string) => call('POST', `${gatewayUrl}/auth/login`, { body: { email, password } })
    expect((await call('GET', `${monitorUrl}/stats`, { token })).status).toBe(403)

    await run('users', 'role', email, 'operator')
    expect(
      (await call('GET', `${monitorUrl}/stats`, { token: (await logIn(gatewayUrl, email)).accessToken })).status,
    ).toBe(200)
    expect(await run('users', 'list')).toContain(`operator  ${email}`)

    await run('users', 'password', email)
    expect((await refresh()).status).toBe(401)
    expect((await logInAs(PASSWORD)).status).toBe(401)
    expect((await logInAs(NEW_PASSWORD)).status).toBe(200)

    await run('users', 'disable', email)
    expect(await logInAs(NEW_PASSWORD)).toMatchObject({ status: 401, body: { code: 'invalid-credentials' } })
    expect(await run('users', 'list')).toContain(`${email}  disabled`)
  }, 30_000)
})

/** Gateway sees a rotation by command within 10 s (keys.ts), the other services within 40 s (tokens.ts). */
const SEEN_WITHIN_MS = 41_000

function keyOf(token: string): string {
  const header = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString())
  return v.parse(v.object({ kid: v.string() }), header).kid
}
