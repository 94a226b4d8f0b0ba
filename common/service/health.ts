import { Hono } from 'hono'

/** A part that the service's health depends on. `check` rejects, or throws, with the reason when it is in trouble. */
export interface Check {
  readonly name: string
  /** Whether the service can answer HTTP at all without it. */
  readonly required: boolean
  check(): Promise<void> | void
}

const CHECK_TIMEOUT_MS = 3000

/** `GET /live`: the process answers. `GET /ready`: 503 where a required part is in trouble, `degraded` where another is. */
export function healthRoutes(checks: readonly Check[], closing: AbortSignal): Hono {
  return new Hono()
    .get('/live', (c) => c.json({ status: 'ok' }))
    .get('/ready', async (c) => {
      const parts = await Promise.all(checks.map(async (part) => ({ ...part, detail: await troubleOf(part) })))
      const troubled = parts.filter((part) => part.detail !== undefined)
      const unavailable = closing.aborted || troubled.some((part) => part.required)
      const status = unavailable ? 'unavailable' : troubled.length > 0 ? 'degraded' : 'ok'
      const shown = Object.fromEntries(
        parts.map(({ name, detail }) => [
          name,
          detail === undefined ? { status: 'ok' } : { status: 'in trouble', detail },
        ]),
      )
      return c.json({ status, parts: shown }, unavailable ? 503 : 200)
    })
}

/** In words of ours: an error's message may name hosts and accounts, and this page asks for no token. */
async function troubleOf(part: Check): Promise<string | undefined> {
  const timeout = Promise.withResolvers<never>()
  const timer = setTimeout(() => timeout.reject(new Error('timeout')), CHECK_TIMEOUT_MS)
  try {
    await Promise.race([part.check(), timeout.promise])
    return undefined
  } catch {
    return `${part.name} does not answer or is recovering; the log says why.`
  } finally {
    clearTimeout(timer)
  }
}
