import { afterAll, beforeAll, expect, test } from 'bun:test'
import * as v from 'valibot'
import { sample } from '../../common/testing/sample.ts'
import { call, expectBody, graphql, Tokens } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { describeLong, describeOnParts, type MakeParts, type Parts } from '../testing/parts.ts'
import { newUser } from '../testing/users.ts'

const PER_DAY = 80
const PER_HOUR = 5

const Page = v.object({ items: v.array(v.object({ id: v.string() })) })

describeOnParts(describeLong, describeFilling)

/** Attackers who fill the disk with an account of their own. */
function describeFilling(makeParts: MakeParts): void {
  let parts: Parts
  let urls: System
  const start = () =>
    startInProcess({
      ...parts.environment,
      // A token of before the restart is good after it.
      TOKEN_ISSUER: 'http://gateway.test',
      SUBMISSIONS_PER_DAY: `user=${PER_DAY},operator=1000`,
      REFRESHES_PER_HOUR: String(PER_HOUR),
    })
  beforeAll(async () => {
    parts = await makeParts()
    urls = await start()
  }, 60_000)
  afterAll(async () => {
    await urls.close()
    await parts.dispose()
  })

  test('one account with 1,200 submissions in 120 GraphQL documents stores its quota of a day, also after a restart of gateway', async () => {
    const { token } = await newUser(urls.gatewayUrl)
    const fields = Array.from({ length: 10 }, (_, n) => `a${n}: ${sample.type}(input: $input) { id }`)
    const document = `mutation ($input: ${sample.graphql.input}!) { ${fields.join(' ')} }`
    /** Resolves to how many operations the user has. */
    const flood = async (documents: number) => {
      for (let n = 0; n < documents; n += 1) await graphql(urls.gatewayUrl, document, { input: sample.input() }, token)
      return expectBody(await call('GET', `${urls.gatewayUrl}/operations?limit=100`, { token }), 200, Page).items.length
    }
    expect(await flood(60)).toBe(PER_DAY)
    await urls.close()
    urls = await start()
    expect(await flood(60)).toBe(PER_DAY)

    const refused = await call('POST', `${urls.gatewayUrl}/operations`, {
      token,
      body: { type: sample.type, input: sample.input() },
    })
    expect(refused).toMatchObject({ status: 429, body: { code: 'quota-exceeded' } })
    expect(refused.headers.get('ratelimit-policy')).toBe(`"submissions-per-day";q=${PER_DAY};qu="requests";w=86400`)
    expect(refused.headers.get('ratelimit')).toMatch(/^"submissions-per-day";r=0;t=\d+$/)
    expect(refused.headers.get('retry-after')).toMatch(/^\d+$/)
    const metrics = await call('GET', `${urls.gatewayUrl}/metrics`)
    expect(String(metrics.body)).toMatch(/^posta_submissions_total\{.*outcome="quota-exceeded".*\} [1-9]/m)
  }, 60_000)

  test('one session that is refreshed 600 times writes no more rows than its quota of an hour', async () => {
    let { refreshToken } = await newUser(urls.gatewayUrl)
    const statuses: number[] = []
    for (let n = 0; n < 600; n += 1) {
      const answer = await call('POST', `${urls.gatewayUrl}/auth/refresh`, { body: { refreshToken } })
      statuses.push(answer.status)
      if (answer.status === 200) ({ refreshToken } = expectBody(answer, 200, Tokens))
    }
    expect(statuses.filter((status) => status === 200)).toHaveLength(PER_HOUR)
    expect(statuses.filter((status) => status === 429)).toHaveLength(600 - PER_HOUR)
  }, 60_000)
}
