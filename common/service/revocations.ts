import * as v from 'valibot'
import type { Caller } from './auth.ts'
import type { Deps } from './deps.ts'
import { createRefresh } from './refresh.ts'

/** Whether the caller of a token that is otherwise good may not use it any more. */
export type IsRevoked = (caller: Caller) => Promise<boolean>

/** What gateway serves beside its keys: what happened so lately that an access token of before may still be alive. */
export const Revocations = v.object({
  /** Ids of sessions that ended. */
  sessions: v.array(v.string()),
  /** Users whose role changed, with the role that they have now; none: they are disabled. */
  users: v.array(v.object({ id: v.string(), role: v.optional(v.picklist(['user', 'operator'])) })),
})
export type Revocations = v.InferOutput<typeof Revocations>

const REFRESH_MS = 20 * 1000

/**
 * Looks revocations up at gateway, beside the keys: `revocations` in the folder of `jwksUrl`. They are fetched at most every
 * 20 s, while tokens are shown, so that a revocation holds within 60 s. While gateway does not answer, or has no such list,
 * those known so far count: tokens live 15 minutes in any case.
 */
export function remoteRevocations(options: { jwksUrl: string; deps: Pick<Deps, 'monotonicMs' | 'fetch'> }): IsRevoked {
  const { jwksUrl, deps } = options
  let sessions: ReadonlySet<string> = new Set()
  let roles: ReadonlyMap<string, Caller['role'] | undefined> = new Map()
  const refresh = createRefresh({
    url: new URL('revocations', jwksUrl).href,
    take(body) {
      const found = v.parse(Revocations, body)
      sessions = new Set(found.sessions)
      roles = new Map(found.users.map(({ id, role }) => [id, role]))
    },
    deps,
  })

  return async ({ user, role, session }) => {
    // What could not be fetched is fetched at the next call after 20 s.
    await refresh(REFRESH_MS).catch(() => {})
    return (session !== undefined && sessions.has(session)) || (roles.has(user) && roles.get(user) !== role)
  }
}
