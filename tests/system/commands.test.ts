import { afterAll, beforeAll, expect, test } from 'bun:test'
import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { call, eventually, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { addOperator, describeLong, embeddedParts, logIn, newUser, PASSWORD, type Parts } from './system.ts'

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

  async function run(command: 'users' | 'keys', ...args: readonly string[]): Promise<string> {
    const child = Bun.spawn([process.execPath, `gateway/tools/${command}.ts`, ...args], {
      cwd: REPOSITORY_ROOT,
      env: { ...process.env, ...parts.environment },
      stdio: [new Blob([`${PASSWORD} of late\n`]), 'pipe', 'inherit'],
    })
    const said = await new Response(child.stdout).text()
    expect(await child.exited).toBe(0)
    return said
  }

  const statusesOf = (token: string) =>
    Promise.all(
      [`${system.gatewayUrl}/auth/me`, `${system.processorUrl}/results`, `${system.monitorUrl}/events`].map(
        async (url) => (await call('GET', url, { token })).status,
      ),
    )

  test('after a rotation tokens of before it pass, and those of every new key, in all services', async () => {
    const { gatewayUrl, monitorUrl } = system
    const [before, early, user] = [await newUser(gatewayUrl), await newUser(gatewayUrl), await newUser(gatewayUrl)]
    // Processor and monitor know the keys of now, and those that are published to come.
    expect(await statusesOf(before.token)).toEqual([200, 200, 200])
    const kids = [keyOf(before.token)]
    for (const rotation of [1, 2]) {
      const kid = (await run('keys', 'rotate')).split(' ')[0] ?? ''
      skippedMs += TAKEN_UP_MS
      const { accessToken } = await logIn(gatewayUrl, user.email)
      expect(keyOf(accessToken)).toBe(kid)
      kids.push(kid)
      // The second is of a key that no one but gateway has heard of.
      expect(await statusesOf(accessToken)).toEqual([200, 200, 200])
      // One that nobody has seen yet, of the key before.
      if (rotation === 1) expect(await statusesOf(early.token)).toEqual([200, 200, 200])
    }
    expect(new Set(kids).size).toBe(3)
    // Two rotations end a key: what it signed and was not seen before passes nowhere.
    expect(await statusesOf(user.token)).toEqual([401, 401, 401])

    const operator = await addOperator(parts, gatewayUrl)
    const Events = v.object({ items: v.array(v.object({ data: v.object({ kid: v.string() }) })) })
    const rotated = await eventually(
      () => call('GET', `${monitorUrl}/events?type=posta.key.rotated`, { token: operator }),
      (answer) => expectBody(answer, 200, Events).items.length === 2,
    )
    expect(expectBody(rotated, 200, Events).items.map(({ data }) => data.kid)).toEqual(kids.slice(1).reverse())
  }, 30_000)

  test('a user who is made operator, gets another password, or is disabled', async () => {
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
    expect((await logInAs(`${PASSWORD} of late`)).status).toBe(200)

    await run('users', 'disable', email)
    expect(await logInAs(`${PASSWORD} of late`)).toMatchObject({ status: 401, body: { code: 'invalid-credentials' } })
    expect(await run('users', 'list')).toContain(`${email}  disabled`)
  }, 30_000)
})

/** As long as a gateway may take to see a rotation by command (REREAD_MS of keys.ts). */
const TAKEN_UP_MS = 31_000

function keyOf(token: string): string {
  const header = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString())
  return v.parse(v.object({ kid: v.string() }), header).kid
}
