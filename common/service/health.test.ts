import { expect, test } from 'bun:test'
import { healthRoutes } from './health.ts'

/** The routes over components that are as the test says, and what they log. */
function start(required: boolean) {
  let failure: Error | undefined
  const lines: string[] = []
  const line = (level: string) => (facts: object, message?: string) => {
    const { component, reason }: { component?: string; reason?: string } = facts
    lines.push([level, component, message, reason].filter(Boolean).join(': '))
  }
  const store = {
    name: 'store',
    required,
    check() {
      if (failure) throw failure
    },
  }
  const works = { name: 'broker', required: true, async check() {} }
  const closing = new AbortController()
  const app = healthRoutes([store, works], closing.signal, { info: line('info'), warn: line('warn') })
  return {
    lines,
    closing,
    fail(reason: string | undefined) {
      failure = reason === undefined ? undefined : new Error(reason)
    },
    async ready() {
      const response = await app.request('/ready')
      return { status: response.status, text: await response.text() }
    },
  }
}

test('a component that fails is logged with the reason once, and once when it works again; the page shows neither', async () => {
  const { lines, fail, ready } = start(false)
  expect(await ready()).toMatchObject({ status: 200 })
  expect(lines).toEqual([])

  fail('connect ECONNREFUSED db.internal:27017')
  const answers = [...(await Promise.all([ready(), ready()])), await ready()]
  for (const { status, text } of answers) {
    expect(status).toBe(200)
    expect(text).toContain('"status":"degraded"')
    expect(text).not.toContain('db.internal')
  }
  expect(lines).toEqual(['warn: store: a component fails its check: connect ECONNREFUSED db.internal:27017'])

  fail(undefined)
  expect((await ready()).text).toContain('"status":"ok"')
  await ready()
  expect(lines.slice(1)).toEqual(['info: store: a component works again'])

  fail('again')
  await ready()
  expect(lines.slice(2)).toEqual(['warn: store: a component fails its check: again'])
})

test('without a required component, and while it closes, a service is not ready', async () => {
  const { fail, ready, closing } = start(true)
  fail('away')
  expect(await ready()).toMatchObject({ status: 503, text: expect.stringContaining('"status":"unavailable"') })
  fail(undefined)
  expect(await ready()).toMatchObject({ status: 200 })
  closing.abort()
  expect(await ready()).toMatchObject({ status: 503 })
})
