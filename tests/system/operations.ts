import { expect } from 'bun:test'
import * as v from 'valibot'
import { type Answer, call, eventually, expectBody } from '../../tools/client.ts'

export const Operation = v.object({
  id: v.string(),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  output: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ code: v.string() })),
})
export type Operation = v.InferOutput<typeof Operation>

export const usdToArs = (amount: string) => ({ type: 'convert', input: { from: 'USD', to: 'ARS', amount } })

/** Submits conversions one after the other, each of which must be accepted, and waits for none. Their ids. */
export async function submitConversions(gatewayUrl: string, token: string, count: number): Promise<string[]> {
  const ids: string[] = []
  for (let index = 0; index < count; index++) {
    const answer = await call('POST', `${gatewayUrl}/operations`, { token, body: usdToArs('1') })
    ids.push(expectBody(answer, 202, Operation).id)
  }
  return ids
}

/** The operation once it is terminal. What was accepted is never unknown on the way there. */
export async function outcomeOf(gatewayUrl: string, token: string, id: string, withinMs = 15_000): Promise<Operation> {
  const answer = await eventually(
    () => call('GET', `${gatewayUrl}/operations/${id}`, { token }),
    (each) => expectBody(each, 200, Operation).status !== 'pending',
    withinMs,
  )
  return expectBody(answer, 200, Operation)
}

/** Expects that every operation succeeds, and that monitor holds one request and one result of each. */
export async function expectAllSucceed(
  urls: { readonly gatewayUrl: string; readonly monitorUrl: string },
  token: string,
  ids: readonly string[],
  withinMs = 15_000,
): Promise<void> {
  const deadlineMs = performance.now() + withinMs
  const leftMs = () => Math.max(0, deadlineMs - performance.now())
  for (const id of ids) expect((await outcomeOf(urls.gatewayUrl, token, id, leftMs())).status).toBe('succeeded')
  for (const id of ids)
    expect(await stepsOf(urls.monitorUrl, token, id, 2, leftMs())).toEqual([
      'posta.operation.requested',
      'posta.operation.succeeded',
    ])
}

const Timeline = v.object({ items: v.array(v.object({ type: v.string() })) })

/** The types on an operation's timeline, once it has at least so many. */
export async function stepsOf(
  monitorUrl: string,
  token: string,
  id: string,
  atLeast: number,
  withinMs = 15_000,
): Promise<string[]> {
  const typesOf = (answer: Answer) => expectBody(answer, 200, Timeline).items.map(({ type }) => type)
  const answer = await eventually(
    () => call('GET', `${monitorUrl}/operations/${id}/timeline`, { token }),
    (each) => each.status === 200 && typesOf(each).length >= atLeast,
    withinMs,
  )
  return typesOf(answer)
}

const Readiness = v.object({
  status: v.picklist(['ok', 'degraded']),
  parts: v.record(v.string(), v.object({ status: v.string() })),
})

/** Waits until the readiness of a service names exactly these parts as in trouble. On the way it never says 503. */
export async function untilInTrouble(url: string, parts: readonly string[], withinMs = 15_000): Promise<void> {
  const troubled = (answer: Answer) => {
    const readiness = expectBody(answer, 200, Readiness)
    const names = Object.entries(readiness.parts).flatMap(([name, { status }]) => (status === 'ok' ? [] : [name]))
    expect(readiness.status).toBe(names.length === 0 ? 'ok' : 'degraded')
    return names.toSorted()
  }
  await eventually(
    () => call('GET', `${url}/health/ready`),
    (answer) => Bun.deepEquals(troubled(answer), parts.toSorted()),
    withinMs,
  )
}

const DeadLetter = v.object({
  id: v.string(),
  status: v.picklist(['open', 'redriven', 'discarded']),
  reason: v.string(),
  group: v.optional(v.string()),
  topic: v.string(),
  redrivable: v.boolean(),
  operation: v.optional(v.string()),
  user: v.optional(v.string()),
  redrive: v.optional(v.object({ event: v.string(), by: v.string(), at: v.string() })),
})
export type DeadLetter = v.InferOutput<typeof DeadLetter>

/** What an operator sees of all dead letters, once there are at least so many. */
export async function deadLettersOf(monitorUrl: string, operator: string, atLeast: number): Promise<DeadLetter[]> {
  const itemsOf = (answer: Answer) => expectBody(answer, 200, v.object({ items: v.array(DeadLetter) })).items
  const answer = await eventually(
    () => call('GET', `${monitorUrl}/dead-letters?limit=100`, { token: operator }),
    (each) => itemsOf(each).length >= atLeast,
  )
  return itemsOf(answer)
}

export function redrive(monitorUrl: string, token: string, id: string): Promise<Answer> {
  return call('POST', `${monitorUrl}/dead-letters/${encodeURIComponent(id)}/redrive`, { token })
}

export function expectRedriven(answer: Answer): DeadLetter {
  return expectBody(answer, 200, DeadLetter)
}
