import { afterAll, beforeAll, expect, test } from 'bun:test'
import * as v from 'valibot'
import { eventually } from '../../common/testing/eventually.ts'
import { sample } from '../../common/testing/sample.ts'
import { call, expectBody, graphql } from '../../tools/client.ts'
import { describeLong, embeddedParts, type Parts } from '../testing/parts.ts'
import { runProgram } from '../testing/run-program.ts'
import { serviceProcesses } from '../testing/service-processes.ts'
import { addOperator, logIn, newUser } from '../testing/users.ts'

const Sessions = v.object({ items: v.array(v.object({ id: v.string(), current: v.boolean() })) })

/** Somebody who holds an access token that its user, or an operator of gateway, has revoked. Three processes. */
describeLong('an access token that was revoked', () => {
  let parts: Parts
  let services: Awaited<ReturnType<typeof serviceProcesses>>
  beforeAll(async () => {
    parts = await embeddedParts()
    services = await serviceProcesses(parts.environment)
    for (const service of Object.values(services)) await service.start()
  }, 60_000)
  afterAll(async () => {
    for (const service of Object.values(services)) await service.stop('SIGTERM')
    await parts.dispose()
  }, 60_000)

  const statuses = (token: string) =>
    Promise.all(
      [`${services.gateway.url}/operations`, `${services.processor.url}/results`, `${services.monitor.url}/events`].map(
        async (url) => (await call('GET', url, { token })).status,
      ),
    )
  /** Gateway refuses at once, all within 60 s. */
  async function expectRevoked(token: string): Promise<void> {
    const submission = { type: sample.type, input: sample.input() }
    const answer = await call('POST', `${services.gateway.url}/operations`, { token, body: submission })
    expect(answer).toMatchObject({ status: 401, body: { code: 'invalid-token' } })
    await eventually(async () => Bun.deepEquals(await statuses(token), [401, 401, 401]), 60_000)
  }

  test('because its session was ended by its user from another device is refused by gateway at once, everywhere within 60 s', async () => {
    const { email, token } = await newUser(services.gateway.url)
    const { accessToken: mine } = await logIn(services.gateway.url, email)
    expect(await statuses(token)).toEqual([200, 200, 200])
    const { items } = expectBody(
      await call('GET', `${services.gateway.url}/auth/sessions`, { token: mine }),
      200,
      Sessions,
    )
    const other = items.find(({ current }) => !current)
    const path = `${services.gateway.url}/auth/sessions/${other?.id}`
    expect((await fetch(path, { method: 'DELETE', headers: { authorization: `Bearer ${mine}` } })).status).toBe(204)
    await expectRevoked(token)
    expect(await statuses(mine)).toEqual([200, 200, 200])

    const everywhere = await graphql(services.gateway.url, 'mutation { logoutEverywhere }', {}, mine)
    expect(everywhere.body).toEqual({ data: { logoutEverywhere: true } })
    await expectRevoked(mine)
  }, 180_000)

  test('because its operator was disabled is refused by gateway at once, everywhere within 60 s', async () => {
    const environment = { ...parts.environment, TOKEN_ISSUER: services.gateway.url }
    const email = await addOperator(environment)
    const { accessToken } = await logIn(services.gateway.url, email)
    expect(await statuses(accessToken)).toEqual([200, 200, 200])
    const disabled = await runProgram(['gateway/tools/users.ts', 'disable', email], { environment })
    expect(disabled.code).toBe(0)
    await expectRevoked(accessToken)
  }, 120_000)
})
