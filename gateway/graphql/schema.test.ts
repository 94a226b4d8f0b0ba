import { afterEach, beforeEach, expect, test } from 'bun:test'
import { operations } from '../database/schema.ts'
import { openApis } from '../testing/apis.ts'
import { progressOf } from '../testing/operations.ts'

let apis: Awaited<ReturnType<typeof openApis>>
beforeEach(async () => {
  apis = await openApis()
})
afterEach(() => apis.close())

const ask = async (token: string, query: string, variables: object = {}) =>
  (await apis.ask('/graphql', token, { query, variables })).body

const CANCEL = 'mutation ($id: ID!) { cancel(id: $id) { id status } }'
const SIGNAL =
  'mutation ($id: ID!, $name: String!, $payload: JSON!) { signal(id: $id, name: $name, payload: $payload) { id status } }'

/** The status of the operation, or the code of the error. */
async function outcomeOf(token: string, query: string, variables: object = {}): Promise<string> {
  const { data, errors } = await ask(token, query, variables)
  return errors?.[0].extensions.code ?? (data.cancel ?? data.signal).status
}

test('cancel answers with the operation, again too, and with the codes of REST', async () => {
  const id = await apis.submit()
  expect(await ask('ana', CANCEL, { id })).toEqual({ data: { cancel: { id, status: 'pending' } } })
  expect(await outcomeOf('olga', CANCEL, { id })).toBe('pending')
  expect(await outcomeOf('bob', CANCEL, { id })).toBe('not-found')
  expect(await outcomeOf('nobody', CANCEL, { id })).toBe('invalid-token')
  await apis.writer.write([apis.database.update(operations).set({ status: 'failed' })])
  expect(await outcomeOf('ana', CANCEL, { id })).toBe('already-terminal')
})

test('signal takes its payload as a variable or in the document, and answers with the codes of REST', async () => {
  const [id, other] = [await apis.submit(), await apis.submit()]
  const asked = { id, name: 'approve', payload: { approved: true } }
  expect(await outcomeOf('olga', SIGNAL, { ...asked, name: 'none' })).toBe('unknown-signal')
  expect(await outcomeOf('ana', SIGNAL, asked)).toBe('forbidden')
  expect(apis.forbidden.at(-1)).toMatchObject({ user: 'ana', service: 'gateway', route: '/graphql' })
  expect(await outcomeOf('bob', SIGNAL, asked)).toBe('not-found')
  expect((await ask('olga', SIGNAL, { ...asked, payload: { approved: true, more: 1 } })).errors[0].extensions).toEqual({
    code: 'invalid-input',
    errors: [{ pointer: '#/payload/more', detail: 'is not a member of this object' }],
  })
  for (const payload of ['yes', 1, [true], { approved: null }])
    expect(await outcomeOf('olga', SIGNAL, { ...asked, payload })).toBe('invalid-input')
  expect(await outcomeOf('olga', SIGNAL, { ...asked, payload: null })).toBe('malformed-request')
  expect(await outcomeOf('olga', SIGNAL, asked)).toBe('pending')
  expect(await outcomeOf('olga', SIGNAL, asked)).toBe('already-given')

  const literal = `mutation ($yes: Boolean!) { signal(id: "${other}", name: "approve", payload: { approved: $yes }) { status } }`
  expect(await outcomeOf('olga', literal, { yes: true })).toBe('pending')
})

test('a payload in a document has at most as many tokens as the document may; a variable is as deep as a body allows', async () => {
  const id = await apis.submit()
  const signal = (payload: string) =>
    `mutation { signal(id: "${id}", name: "approve", payload: ${payload}) { status } }`
  const { errors } = await ask('olga', signal(`${'['.repeat(1500)}${']'.repeat(1500)}`))
  expect(errors[0].message).toMatch(/^Syntax Error: Document contains more .*2000 tokens/)
  expect(await outcomeOf('olga', signal(`${'['.repeat(900)}${']'.repeat(900)}`))).toBe('invalid-input')

  const deep = `${'['.repeat(30_000)}${']'.repeat(30_000)}`
  const body = JSON.stringify({ query: SIGNAL, variables: { id, name: 'approve', payload: 0 } })
  const answer = await apis.ask('/graphql', 'olga', body.replace('"payload":0', `"payload":${deep}`))
  expect(answer.body.errors[0].extensions.code).toBe('invalid-input')
})

test('an operation has its progress, or none', async () => {
  const [id, other] = [await apis.submit(), await apis.submit()]
  await apis.keep(progressOf(id, 1))
  await apis.keep(progressOf(id, 0, { status: 'waiting' }))
  const query = 'query ($id: ID!) { operation(id: $id) { progress { step status at } } }'
  const at = '2026-11-23T12:00:00.000Z'
  expect(await ask('ana', query, { id })).toEqual({
    data: {
      operation: {
        progress: [
          { step: 'step-0', status: 'waiting', at },
          { step: 'step-1', status: 'done', at },
        ],
      },
    },
  })
  expect(await ask('ana', query, { id: other })).toEqual({ data: { operation: { progress: null } } })
})

test('operationChanged yields each progress and the outcome, and ends', async () => {
  const id = await apis.submit()
  const response = await apis.app.request('/graphql', {
    method: 'POST',
    headers: { Authorization: 'Bearer ana', 'Content-Type': 'application/json', Accept: 'text/event-stream' },
    body: JSON.stringify({
      query: 'subscription ($id: ID!) { operationChanged(id: $id) { status progress { step } } }',
      variables: { id },
    }),
  })
  const seen: string[] = []
  for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? [])
    for (const [, data = ''] of chunk.matchAll(/^data: (\{.*)$/gm)) {
      const { status, progress } = JSON.parse(data).data.operationChanged
      const steps = (progress ?? []).length
      seen.push(`${status} ${steps}`)
      if (steps < 2) await apis.keep(progressOf(id, steps))
      else await apis.writer.write([apis.database.update(operations).set({ status: 'succeeded' })])
    }
  expect(seen).toEqual(['pending 0', 'pending 1', 'pending 2', 'succeeded 2'])
})
