import * as v from 'valibot'
import { type Answer, askUntil, call, expectBody } from '../../tools/client.ts'

export const DeadLetter = v.object({
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

/** Resolves to all dead letters as an operator sees them, once there are at least so many. */
export async function deadLettersOf(monitorUrl: string, operator: string, atLeast: number): Promise<DeadLetter[]> {
  const itemsOf = (answer: Answer) => expectBody(answer, 200, v.object({ items: v.array(DeadLetter) })).items
  const answer = await askUntil(
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
