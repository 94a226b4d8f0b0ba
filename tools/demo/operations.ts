import * as v from 'valibot'
import { askUntil, call, expectBody, graphql, Tokens } from '../client.ts'
import { type Credentials, type Demonstrated, dataOf, say } from './say.ts'

const Output = v.record(v.string(), v.unknown())
const Succeeded = v.object({ id: v.string(), status: v.literal('succeeded'), output: Output })
const Limited = v.object({ code: v.literal('limit-exceeded'), message: v.string() })
const Refused = v.object({ status: v.literal('failed'), error: Limited })
const Step = v.object({ step: v.string(), status: v.picklist(['done', 'undone', 'waiting']) })
const Progressed = v.object({ id: v.string(), status: v.string(), progress: v.optional(v.array(Step), []) })
const Cancelled = v.object({
  status: v.literal('failed'),
  error: v.object({ code: v.literal('cancelled'), message: v.string() }),
})
const Submitted = dataOf({ storeRates: v.object({ id: v.string() }) })
const Stored = dataOf({ operation: v.object({ status: v.literal('succeeded'), storeRates: Output }) })

/** Submits operations of each kind. Resolves to the id of the first. @throws Error when an answer is not as it should be. */
export async function demonstrateOperations({
  gatewayUrl,
  tokens: [token, graphqlToken],
  operator,
}: Demonstrated): Promise<string> {
  const convert = (amount: string) =>
    call('POST', `${gatewayUrl}/operations`, {
      token,
      body: { type: 'convert', input: { from: 'USD', to: 'ARS', amount } },
      headers: { Prefer: 'wait=10' },
    })
  const converted = expectBody(await convert('100.50'), 200, Succeeded)
  say('100.50 USD become ARS: POST /operations, Prefer: wait=10', converted.output)

  const store = 'mutation { storeRates(input: { base: "USD" }) { id } }'
  const { storeRates } = expectBody(await graphql(gatewayUrl, store, {}, graphqlToken), 200, Submitted).data
  const query = 'query ($id: ID!) { operation(id: $id) { status storeRates { base date currencies source } } }'
  const stored = await askUntil(
    () => graphql(gatewayUrl, query, { id: storeRates.id }, graphqlToken),
    ({ body }) => v.is(Stored, body),
  )
  say("The day's rates are stored: mutation storeRates", expectBody(stored, 200, Stored).data.operation.storeRates)

  await demonstratePayouts(gatewayUrl, token, operator)

  say('Beyond the daily limit the answer is a refusal', expectBody(await convert('9999.99'), 200, Refused).error)
  return converted.id
}

/** Operations in steps: one is paid, one waits for an operator who approves it, one is cancelled while it waits. */
async function demonstratePayouts(gatewayUrl: string, token: string, operator: Credentials): Promise<void> {
  const operations = `${gatewayUrl}/operations`
  const submit = (amount: string) =>
    call('POST', operations, {
      token,
      body: { type: 'payout', input: { from: 'USD', to: 'EUR', amount, payee: 'ana-savings' } },
    })
  const until = (id: string, done: (operation: v.InferOutput<typeof Progressed>) => boolean) =>
    askUntil(
      () => call('GET', `${operations}/${id}`, { token }),
      (answer) => done(expectBody(answer, 200, Progressed)),
    )
  const isTerminal = ({ status }: { status: string }) => status !== 'pending'
  const waits = ({ progress }: v.InferOutput<typeof Progressed>) => progress.at(-1)?.status === 'waiting'
  const shown = (steps: readonly v.InferOutput<typeof Step>[]) =>
    steps.map(({ step, status }) => `${step} ${status}`).join(', ')

  const small = expectBody(await submit('50'), 202, Progressed)
  const paid = await until(small.id, isTerminal)
  say('A payout is made in steps at a provider', expectBody(paid, 200, Succeeded).output)
  say(`    ${shown(expectBody(paid, 200, Progressed).progress)}`)

  const login = await call('POST', `${gatewayUrl}/auth/login`, { body: operator })
  const { accessToken } = expectBody(login, 200, Tokens)
  const large = expectBody(await submit('1500'), 202, Progressed)
  await until(large.id, waits)
  const approval = { token: accessToken, body: { approved: true } }
  expectBody(await call('POST', `${operations}/${large.id}/signals/approve`, approval), 202, Progressed)
  const approved = await until(large.id, isTerminal)
  expectBody(approved, 200, Succeeded)
  say('A large one waits until an operator approves it: POST /operations/{id}/signals/approve')
  say(`    ${shown(expectBody(approved, 200, Progressed).progress)}`)

  const unwanted = expectBody(await submit('1200'), 202, Progressed)
  await until(unwanted.id, waits)
  expectBody(await call('POST', `${operations}/${unwanted.id}/cancel`, { token }), 202, Progressed)
  const cancelled = await until(unwanted.id, isTerminal)
  say('Another is cancelled while it waits: POST /operations/{id}/cancel', expectBody(cancelled, 200, Cancelled).error)
  say(`    ${shown(expectBody(cancelled, 200, Progressed).progress)}`)
}
