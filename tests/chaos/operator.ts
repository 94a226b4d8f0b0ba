import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { type Answer, call, Tokens } from '../../tools/client.ts'
import { environmentFor } from '../../tools/infra/server.ts'
import type { Fleet } from './fleet.ts'
import type { Random } from './random.ts'

/** An operator, who redrives dead letters and looks at what the services show. */
export interface Operator {
  /** Most of the dead letters of requests that can be redriven, each asked for more than once, of several monitors. */
  redrive(): Promise<void>
  /** Those that were redriven though their operations, these, are failed: a topic took the message or the reply with it. */
  redriveAgain(operations: ReadonlySet<string>): Promise<void>
  /** An answer with a status below 400, or undefined after some tries. */
  get(url: string): Promise<unknown>
}

const PASSWORD = 'an operator never sleeps well'
const EMAIL = 'operator@example.com'
const ASK_WITHIN_MS = 30_000

const Page = v.object({
  items: v.array(v.object({ id: v.string(), redrivable: v.boolean(), operation: v.optional(v.string()) })),
  next: v.optional(v.string()),
})
type Letter = v.InferOutput<typeof Page>['items'][number]

export async function createOperator(options: { dataDir: string; fleet: Fleet; random: Random }): Promise<Operator> {
  const { dataDir, fleet, random } = options
  const child = Bun.spawn([process.execPath, 'gateway/tools/users.ts', 'add', EMAIL, '--role', 'operator'], {
    cwd: REPOSITORY_ROOT,
    env: { ...environmentFor(), DATA_DIR: dataDir },
    stdin: new Blob([`${PASSWORD}\n`]),
    stdout: 'ignore',
    stderr: 'inherit',
  })
  if ((await child.exited) !== 0) throw new Error('The operator could not be added.')
  let token = ''

  async function ask(method: 'GET' | 'POST', url: string, tries = 5): Promise<Answer | undefined> {
    for (let attempt = 0; attempt < tries; attempt++) {
      try {
        const answer = await call(method, url, { token, signal: AbortSignal.timeout(ASK_WITHIN_MS) })
        if (answer.status < 400) return answer
        if (answer.status === 401) await logIn()
        else if (answer.status < 500) return undefined
      } catch {
        // A fault is in the way.
      }
      await Bun.sleep(500)
    }
    return undefined
  }

  async function logIn(): Promise<void> {
    const { url } = random.pick(fleet.members('gateway').filter(({ extra }) => !extra))
    const answer = await call('POST', `${url}/auth/login`, {
      body: { email: EMAIL, password: PASSWORD },
      signal: AbortSignal.timeout(ASK_WITHIN_MS),
    })
    if (v.is(Tokens, answer.body)) token = answer.body.accessToken
  }

  const monitors = () => fleet.members('monitor').flatMap(({ url, extra }) => (extra ? [] : [url]))

  /** Those of requests, as far as they can be had. */
  async function list(status: 'open' | 'redriven'): Promise<Letter[]> {
    const letters: Letter[] = []
    for (let next: string | undefined = ''; next !== undefined; ) {
      const query: string = `status=${status}&topic=posta.requests&limit=100${next && `&cursor=${encodeURIComponent(next)}`}`
      const page = await ask('GET', `${random.pick(monitors())}/dead-letters?${query}`)
      if (!page || !v.is(Page, page.body)) break
      letters.push(...page.body.items)
      next = page.body.next
    }
    return letters
  }

  /** Each asked for of every monitor at once. */
  async function redriveAll(letters: readonly Letter[]): Promise<void> {
    await Promise.all(
      letters.flatMap(({ id }) =>
        monitors().map((url) => ask('POST', `${url}/dead-letters/${encodeURIComponent(id)}/redrive`)),
      ),
    )
  }

  return {
    async redrive() {
      const ours = (await list('open')).filter(({ redrivable, operation }) => {
        return redrivable && operation !== undefined && fleet.misread.includes(operation)
      })
      await redriveAll(ours.filter(() => random.chance(0.8)))
    },
    async redriveAgain(operations) {
      await redriveAll(
        (await list('redriven')).filter(({ operation }) => operation !== undefined && operations.has(operation)),
      )
    },
    async get(url) {
      return (await ask('GET', url, 30))?.body
    },
  }
}
