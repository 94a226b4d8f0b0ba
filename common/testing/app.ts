import type { Caller } from '../service/auth.ts'
import { type Deps, systemDeps } from '../service/deps.ts'
import { createApp } from '../service/http.ts'
import { createLog } from '../service/log.ts'
import { createMetrics } from '../service/metrics.ts'
import { Problem } from '../service/problem.ts'

/** For tests of routes: the app that they are mounted in, without a service around it. */
export function testApp(deps: Deps = systemDeps) {
  const config = { allowedOrigins: [], production: true }
  return createApp({ config, log: createLog('test', 'silent'), metrics: createMetrics('test'), deps })
}

/** A check of tokens for tests: a token is the name of a user, and `operators` names those who are operators. */
export function testVerifier(users: readonly string[], operators: readonly string[]) {
  return async (token: string): Promise<Caller> => {
    if (operators.includes(token)) return { user: token, role: 'operator' }
    if (users.includes(token)) return { user: token, role: 'user' }
    throw new Problem('invalid-token')
  }
}
