import { expect } from 'bun:test'
import * as v from 'valibot'
import { sample } from '../../common/testing/sample.ts'
import { type Answer, askUntil, call, expectBody } from '../../tools/client.ts'
import type { System } from '../../tools/in-process.ts'

export const Operation = v.object({
  id: v.string(),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  output: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ code: v.string() })),
})
export type Operation = v.InferOutput<typeof Operation>

/** A submission of `sample`. */
export const submissionOf = (n = 1) => ({ type: sample.type, input: sample.input(n) })

/** Submits operations one after the other, and expects that each is accepted. Resolves to their ids. */
export async function submitMany(gatewayUrl: string, token: string, count: number): Promise<string[]> {
  const ids: string[] = []
  for (let index = 0; index < count; index++) {
    const answer = await call('POST', `${gatewayUrl}/operations`, { token, body: submissionOf() })
    ids.push(expectBody(answer, 202, Operation).id)
  }
  return ids
}

/** Resolves to the operation once it is terminal. Expects that every GET until then finds it. */
export async function outcomeOf(gatewayUrl: string, token: string, id: string, withinMs = 15_000): Promise<Operation> {
  const answer = await askUntil(
    () => call('GET', `${gatewayUrl}/operations/${id}`, { token }),
    (each) => expectBody(each, 200, Operation).status !== 'pending',
    withinMs,
  )
  return expectBody(answer, 200, Operation)
}

/** Expects that every operation succeeds, and that monitor holds one request and one result of each. */
export async function expectAllSucceed(
  urls: Pick<System, 'gatewayUrl' | 'monitorUrl'>,
  token: string,
  ids: readonly string[],
  withinMs = 15_000,
): Promise<void> {
  const deadlineMs = performance.now() + withinMs
  const leftMs = () => Math.max(0, deadlineMs - performance.now())
  for (const id of ids) expect((await outcomeOf(urls.gatewayUrl, token, id, leftMs())).status).toBe('succeeded')
  for (const id of ids)
    expect(await timelineOf(urls.monitorUrl, token, id, 2, leftMs())).toEqual([
      'posta.operation.requested',
      'posta.operation.succeeded',
    ])
}

const Timeline = v.object({ items: v.array(v.object({ type: v.string() })) })

/** Resolves to the types of an operation's events, once monitor has at least so many of them. */
export async function timelineOf(
  monitorUrl: string,
  token: string,
  id: string,
  atLeast: number,
  withinMs = 15_000,
): Promise<string[]> {
  const typesOf = (answer: Answer) => expectBody(answer, 200, Timeline).items.map(({ type }) => type)
  const answer = await askUntil(
    () => call('GET', `${monitorUrl}/operations/${id}/timeline`, { token }),
    (each) => each.status === 200 && typesOf(each).length >= atLeast,
    withinMs,
  )
  return typesOf(answer)
}

const Readiness = v.object({
  status: v.picklist(['ok', 'degraded']),
  parts: v.record(v.string(), v.object({ status: v.picklist(['ok', 'failing']) })),
})

/** Resolves when exactly these components of a service fail. Expects that the service never answers 503 until then. */
export async function untilFailing(url: string, components: readonly string[], withinMs = 15_000): Promise<void> {
  const failing = (answer: Answer) => {
    const { status, parts } = expectBody(answer, 200, Readiness)
    const names = Object.keys(parts).filter((name) => parts[name]?.status === 'failing')
    expect(status).toBe(names.length === 0 ? 'ok' : 'degraded')
    return names.toSorted()
  }
  await askUntil(
    () => call('GET', `${url}/health/ready`),
    (answer) => Bun.deepEquals(failing(answer), components.toSorted()),
    withinMs,
  )
}
