import { Hono } from 'hono'
import type { Component } from './component.ts'
import { within } from './deadline.ts'
import type { Logger } from './log.ts'
import { messageOf } from './outage.ts'

const CHECK_TIMEOUT_MS = 3000

/**
 * `GET /live`: the process answers. `GET /ready`: 503 while a required component fails its check, 200 and `degraded` while
 * another one does. The log says why, once when a component begins to fail and once when it works again.
 */
export function healthRoutes(
  components: readonly Component[],
  closing: AbortSignal,
  log: Pick<Logger, 'info' | 'warn'>,
): Hono {
  const failing = new Set<string>()

  /** Undefined if it works. Not the error's message: it may name hosts and accounts, and anyone may read this page. */
  async function failureOf({ name, check }: Component): Promise<string | undefined> {
    try {
      await within(
        Promise.try(() => check?.()),
        CHECK_TIMEOUT_MS,
        'The answer',
      )
      if (failing.delete(name)) log.info({ component: name }, 'a component works again')
      return undefined
    } catch (error) {
      if (!failing.has(name)) log.warn({ component: name, reason: messageOf(error) }, 'a component fails its check')
      failing.add(name)
      return `${name} does not answer or is recovering; the log says why.`
    }
  }

  const checked = components.filter(({ check }) => check)
  return new Hono()
    .get('/live', (c) => c.json({ status: 'ok' }))
    .get('/ready', async (c) => {
      const results = await Promise.all(
        checked.map(async (component) => ({ ...component, detail: await failureOf(component) })),
      )
      const failed = results.filter(({ detail }) => detail !== undefined)
      const unavailable = closing.aborted || failed.some(({ required }) => required)
      const status = unavailable ? 'unavailable' : failed.length > 0 ? 'degraded' : 'ok'
      const parts = Object.fromEntries(
        results.map(({ name, detail }) => [
          name,
          detail === undefined ? { status: 'ok' } : { status: 'failing', detail },
        ]),
      )
      return c.json({ status, parts }, unavailable ? 503 : 200)
    })
}
