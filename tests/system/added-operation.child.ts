// Runs in a copy of this repository to which operations were added: prints where each is found, as JSON.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { NAME } from '../../common/name.ts'
import { askUntil, call, expectBody, graphql } from '../../tools/client.ts'
import { startInProcess } from '../../tools/in-process.ts'
import { timelineOf } from '../testing/operations.ts'
import { newOperator, newUser } from '../testing/users.ts'

const Added = v.object({
  type: v.string(),
  /** Of GraphQL: its mutation, the field of `Operation`, and the output's fields. */
  field: v.string(),
  outputFields: v.string(),
  input: v.record(v.string(), v.unknown()),
  /** How many events its timeline has in the end. */
  events: v.number(),
})
const added = v.parse(v.array(Added), JSON.parse(process.argv[2] ?? ''))
const Output = v.record(v.string(), v.unknown())
const Progress = v.nullish(v.array(v.object({ step: v.string(), status: v.string() })))
const Done = v.object({
  id: v.string(),
  status: v.literal('succeeded'),
  output: Output,
  progress: v.optional(Progress),
})

const dataDir = mkdtempSync(join(tmpdir(), `${NAME}-added-`))
const ports = { GATEWAY_PORT: '0', PROCESSOR_PORT: '0', MONITOR_PORT: '0' }
const environment = { ...ports, DATA_DIR: dataDir, LOG_LEVEL: 'silent' }
const system = await startInProcess(environment)
try {
  const { gatewayUrl, processorUrl, monitorUrl } = system
  const { token } = await newUser(gatewayUrl)
  const textOf = async (path: string) => JSON.stringify((await call('GET', gatewayUrl + path)).body)
  const [openApi, asyncApi] = [await textOf('/openapi.json'), await textOf('/asyncapi.json')]
  const found = []
  for (const { type, field, outputFields, input, events } of added) {
    const headers = { Prefer: 'wait=10' }
    const submitted = await call('POST', `${gatewayUrl}/operations`, { token, body: { type, input }, headers })
    const operation = expectBody(submitted, 200, Done)

    const mutation = `mutation ($input: ${field.replace(/^./, (letter) => letter.toUpperCase())}Input!) { ${field}(input: $input) { id } }`
    const Submitted = v.object({ data: v.object({ [field]: v.object({ id: v.string() }) }) })
    const id = expectBody(await graphql(gatewayUrl, mutation, { input }, token), 200, Submitted).data[field]?.id
    const query = `query ($id: ID!) { operation(id: $id) { ${field} { ${outputFields} } progress { step status } } }`
    const Answered = v.object({ data: v.object({ operation: v.object({ [field]: Output, progress: Progress }) }) })
    const answered = await askUntil(
      () => graphql(gatewayUrl, query, { id }, token),
      (answer) => v.is(Answered, answer.body),
    )
    const { [field]: output, progress } = expectBody(answered, 200, Answered).data.operation

    const result = await call('GET', `${processorUrl}/results/${operation.id}`, { token })
    found.push({
      type,
      rest: { output: operation.output, progress: stepsOf(operation.progress) },
      graphql: { output, progress: stepsOf(v.parse(Progress, progress)) },
      openApi: openApi.includes(`"${type}"`),
      asyncApi: asyncApi.includes(`"${type}"`),
      result: expectBody(result, 200, v.object({ output: Output })).output,
      timeline: await timelineOf(monitorUrl, token, operation.id, events),
    })
    await timelineOf(monitorUrl, token, id ?? '', events)
  }

  const Chain = v.object({ chain: v.string(), events: v.number() })
  const verified = await call('GET', `${monitorUrl}/audit/verify`, {
    token: await newOperator(environment, gatewayUrl),
  })
  const { ok, chains } = expectBody(verified, 200, v.object({ ok: v.boolean(), chains: v.array(Chain) }))
  const eventsOf = (topic: string) => chains.find(({ chain }) => chain.includes(topic))?.events
  console.log(JSON.stringify({ found, audit: { ok, requests: eventsOf('.requests'), results: eventsOf('.results') } }))
} finally {
  await system.close()
  rmSync(dataDir, { recursive: true, force: true })
}
process.exit(0)

function stepsOf(progress: v.InferOutput<typeof Progress>): string[] | undefined {
  return progress?.map(({ step, status }) => `${step} ${status}`)
}
