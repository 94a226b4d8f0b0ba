// Runs in a copy of this repository to which an operation `split` was added: prints where it is found, as JSON.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { askUntil, call, expectBody, graphql } from '../../tools/client.ts'
import { startInProcess } from '../../tools/in-process.ts'
import { newUser } from '../testing/users.ts'

const dataDir = mkdtempSync(join(tmpdir(), 'posta-added-'))
const ports = { GATEWAY_PORT: '0', PROCESSOR_PORT: '0', MONITOR_PORT: '0' }
const system = await startInProcess({ ...ports, DATA_DIR: dataDir, RATES_URL: 'bundled:', LOG_LEVEL: 'silent' })
try {
  const { gatewayUrl, processorUrl, monitorUrl } = system
  const { token } = await newUser(gatewayUrl)
  const Output = v.object({ each: v.number(), last: v.number() })

  const body = { type: 'split', input: { cents: 1000, people: 3 } }
  const submitted = await call('POST', `${gatewayUrl}/operations`, { token, body, headers: { Prefer: 'wait=10' } })
  const operation = expectBody(submitted, 200, v.object({ id: v.string(), output: Output }))

  const mutation = 'mutation { split(input: { cents: 1000, people: 4 }) { id } }'
  const Submitted = v.object({ data: v.object({ split: v.object({ id: v.string() }) }) })
  const { id } = expectBody(await graphql(gatewayUrl, mutation, {}, token), 200, Submitted).data.split
  const Answered = v.object({ data: v.object({ operation: v.object({ split: Output }) }) })
  const answered = await askUntil(
    () => graphql(gatewayUrl, 'query ($id: ID!) { operation(id: $id) { split { each last } } }', { id }, token),
    (answer) => v.is(Answered, answer.body),
  )

  const Timeline = v.object({ items: v.array(v.object({ type: v.string() })) })
  const timeline = await askUntil(
    () => call('GET', `${monitorUrl}/operations/${operation.id}/timeline`, { token }),
    (answer) => v.is(Timeline, answer.body) && answer.body.items.length === 2,
  )
  const result = await call('GET', `${processorUrl}/results/${operation.id}`, { token })
  const textOf = async (path: string) => JSON.stringify((await call('GET', gatewayUrl + path)).body)
  console.log(
    JSON.stringify({
      rest: operation.output,
      graphql: expectBody(answered, 200, Answered).data.operation.split,
      openApi: (await textOf('/openapi.json')).includes('"split"'),
      asyncApi: (await textOf('/asyncapi.json')).includes('"split"'),
      result: expectBody(result, 200, v.object({ output: Output })).output,
      timeline: expectBody(timeline, 200, Timeline).items.map(({ type }) => type),
    }),
  )
} finally {
  await system.close()
  rmSync(dataDir, { recursive: true, force: true })
}
process.exit(0)
