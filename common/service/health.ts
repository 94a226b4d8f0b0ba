import { Hono } from 'hono'
import type { Logger } from './log.ts'

/** A part that the service's health depends on. `check` rejects, or throws, with the reason when it is in trouble. */
export interface Check {
  readonly name: string
  /** Whether the service can answer HTTP at all without it. */
  readonly required: boolean
  check(): Promise<void> | void
}

const CHECK_TIMEOUT_MS = 3000

/**
 * `GET /live`: the process answers. `GET /ready`: 503 where a required part is in trouble, `degraded` where another is.
 * The log says why: once when a part gets into trouble, and once when it is out of it.
 */
export function healthRoutes(checks: readonly Check[], closing: AbortSignal, log: Pick<Logger, 'info' | 'warn'>): Hono {
  const inTrouble = new Set<string>()

  /** In words of ours: an error's message may name hosts and accounts, and this page asks for no token. */
  async function troubleOf(part: Check): Promise<string | undefined> {
    try {
      await inTime(part)
      if (inTrouble.delete(part.name)) log.info({ part: part.name }, 'a part works again')
      return undefined
    } catch (error) {
      if (!inTrouble.has(part.name)) log.warn({ err: error, part: part.name }, 'a part is in trouble')
      inTrouble.add(part.name)
      return `${part.name} does not answer or is recovering; the log says why.`
    }
  }

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

async function inTime(part: Check): Promise<void> {
  const timeout = Promise.withResolvers<never>()
  const late = () => timeout.reject(new Error(`No answer within ${CHECK_TIMEOUT_MS} ms.`))
  const timer = setTimeout(late, CHECK_TIMEOUT_MS)
  try {
    await Promise.race([part.check(), timeout.promise])
  } finally {
    clearTimeout(timer)
  }
}
