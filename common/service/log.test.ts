import { expect, test } from 'bun:test'
import { join } from 'node:path'

/** What a process prints that logs these facts. */
async function printed(facts: string): Promise<string> {
  const script = `
    const { createLog } = await import(${JSON.stringify(join(import.meta.dir, 'log.ts'))})
    createLog('test', 'info').warn(${facts}, 'a request failed')`
  const { stdout } = Bun.spawn([process.execPath, '-e', script], { stderr: 'inherit' })
  return new Response(stdout).text()
}

test("an error is told with its cause; a query's values are left out of it", async () => {
  const query = `Object.assign(new Error('Failed query: select … params: ana@example.com', {
    cause: Object.assign(new Error('The disk is full.'), { code: 'SQLITE_FULL' }),
  }), { params: ['ana@example.com'] })`
  const line = await printed(`{ err: ${query}, part: 'store' }`)
  expect(JSON.parse(line)).toMatchObject({
    level: 'warn',
    service: 'posta-test',
    part: 'store',
    msg: 'a request failed',
    err: { code: 'SQLITE_FULL', message: 'The disk is full.' },
  })
  expect(line).not.toContain('ana@example.com')
  expect(JSON.parse(await printed(`{ err: new TypeError('It is undefined.') }`)).err).toMatchObject({
    type: 'TypeError',
    message: 'It is undefined.',
  })
})

test('an outage is told in one sentence, with what could not be reached and without a stack', async () => {
  const ask = `await fetch('http://127.0.0.1:1/keys').catch((cause) => new Error('The keys cannot be fetched.', { cause }))`
  const { err } = JSON.parse(await printed(`{ err: ${ask} }`))
  expect(err).toMatchObject({ code: 'ECONNREFUSED', path: 'http://127.0.0.1:1/keys' })
  expect(err.message).toMatch(/^The keys cannot be fetched\. .*ECONNREFUSED/)
  expect(err).not.toHaveProperty('stack')
})

test('secrets do not get into the log, wherever they stand', async () => {
  const line = await printed(
    `{ password: 'hidden 1', body: { refreshToken: 'hidden 2', deeper: { accessToken: 'hidden 3' } } }`,
  )
  expect(line).toContain('a request failed')
  expect(line).not.toContain('hidden')
})
