import * as v from 'valibot'
import { tryCall } from '../testing/try-call.ts'
import type { Note } from './history.ts'

/** What an operation is told: to cancel, or whether it is approved. */
export type Told = { readonly what: 'cancel' } | { readonly what: 'approve'; readonly approved: boolean }

const Problem = v.object({ code: v.string() })
const ANSWER_WITHIN_MS = 8000
const TRIES = 8

/** Tells an operation something, and notes that and the answer. Sends it again until there is one. False: there was none. */
export async function tell(
  id: string,
  told: Told,
  by: {
    readonly user: () => { readonly id: string; readonly token: string }
    readonly anyUrl: () => string
    readonly note: Note
    readonly logIn: () => Promise<unknown>
    readonly pause: (tries: number) => Promise<void>
  },
): Promise<boolean> {
  const path = told.what === 'cancel' ? 'cancel' : 'signals/approve'
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const { id: user, token } = by.user()
    by.note({ kind: 'tell', user, id, ...told })
    const { status, body } = await tryCall('POST', `${by.anyUrl()}/operations/${id}/${path}`, {
      token,
      ...(told.what === 'approve' && { body: { approved: told.approved } }),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    })
    by.note({ kind: 'told', user, id, what: told.what, status, code: v.is(Problem, body) ? body.code : undefined })
    if (status === 401) await by.logIn()
    else if (status > 0 && status < 500 && status !== 429) return true
    await by.pause(attempt)
  }
  return false
}
