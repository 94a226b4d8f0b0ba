import * as v from 'valibot'
import { askUntil, call, expectBody, graphql } from '../client.ts'
import { type Demonstrated, dataOf, say } from './say.ts'

const Output = v.object({ text: v.string() })
const Succeeded = v.object({ id: v.string(), status: v.literal('succeeded'), output: Output })
const Submitted = dataOf({ echo: v.object({ id: v.string() }) })
const Answered = dataOf({ operation: v.object({ status: v.literal('succeeded'), echo: Output }) })

/** Submits an operation over each API. Resolves to the id of the first. @throws Error when an answer is not as it should be. */
export async function demonstrateOperations({
  gatewayUrl,
  tokens: [token, graphqlToken],
}: Demonstrated): Promise<string> {
  const first = await call('POST', `${gatewayUrl}/operations`, {
    token,
    body: { type: 'echo', input: { text: 'hello' } },
    headers: { Prefer: 'wait=10' },
  })
  const { id, output } = expectBody(first, 200, Succeeded)
  say('An operation is done: POST /operations, Prefer: wait=10', output)

  const mutation = 'mutation { echo(input: { text: "hello again" }) { id } }'
  const { echo } = expectBody(await graphql(gatewayUrl, mutation, {}, graphqlToken), 200, Submitted).data
  const query = 'query ($id: ID!) { operation(id: $id) { status echo { text } } }'
  const answered = await askUntil(
    () => graphql(gatewayUrl, query, { id: echo.id }, graphqlToken),
    ({ body }) => v.is(Answered, body),
  )
  say('and another over GraphQL: mutation echo', expectBody(answered, 200, Answered).data.operation.echo)
  return id
}
