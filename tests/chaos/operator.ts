import * as v from 'valibot'
import { Tokens } from '../../tools/client.ts'
import { tryCall } from '../testing/try-call.ts'
import { addOperator, PASSWORD } from '../testing/users.ts'
import type { Fleet } from './fleet.ts'
import type { Random } from './random.ts'
import type { Snapshot } from './snapshot.ts'

/** An operator, who redrives dead letters and looks at what the services show. */
export interface Operator {
  /** Redrives most of the dead letters of misread requests, each several times, by every monitor. */
  redrive(): Promise<void>
  /** Redrives the dead letters of these operations again: a message of the first redrive was lost with its topic. */
  redriveAgain(operations: ReadonlySet<string>): Promise<void>
  /** What processor and monitor show once monitor has caught up, with the timelines of some of the operations. */
  look(operations: readonly string[]): Promise<Snapshot['shown']>
}

const ANSWER_WITHIN_MS = 30_000
const CATCH_UP_WITHIN_MS = 120_000
const TIMELINES = 30

const Letter = v.object({ id: v.string(), redrivable: v.boolean(), operation: v.optional(v.string()) })
type Letter = v.InferOutput<typeof Letter>
const Result = v.object({ id: v.string(), status: v.string() })
const Timeline = v.object({ items: v.array(v.object({ type: v.string() })) })
const Audit = v.object({ ok: v.boolean(), events: v.number() })

export async function createOperator(dataDir: string, fleet: Fleet, random: Random): Promise<Operator> {
  const email = await addOperator({ DATA_DIR: dataDir })
  const urls = (service: 'gateway' | 'monitor') =>
    fleet.members(service).flatMap(({ url, extra }) => (extra ? [] : [url]))
  let token = ''

  /** Resolves to the body of an answer below 400; to undefined after a refusal or so many tries without an answer. */
  async function ask(method: 'GET' | 'POST', url: string, tries: number): Promise<unknown> {
    for (let attempt = 0; attempt < tries; attempt++) {
      const answer = await tryCall(method, url, { token, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
      if (answer.status > 0 && answer.status < 400) return answer.body
      if (answer.status === 401) await logIn()
      else if (answer.status > 0 && answer.status < 500) return undefined
      await Bun.sleep(500)
    }
    return undefined
  }

  async function logIn(): Promise<void> {
    const body = { email, password: PASSWORD }
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS)
    const answer = await tryCall('POST', `${random.pick(urls('gateway'))}/auth/login`, { body, signal })
    if (v.is(Tokens, answer.body)) token = answer.body.accessToken
  }

  /** All items of a list, page by page, as far as there are answers. */
  async function list<Item extends v.GenericSchema>(
    item: Item,
    url: string,
    tries = 5,
  ): Promise<v.InferOutput<Item>[]> {
    const Page = v.object({ items: v.array(item), next: v.optional(v.string()) })
    const items: v.InferOutput<Item>[] = []
    let cursor = ''
    for (;;) {
      const page = v.safeParse(Page, await ask('GET', url + cursor, tries))
      if (page.success) items.push(...page.output.items)
      if (!page.success || page.output.next === undefined) return items
      cursor = `&cursor=${encodeURIComponent(page.output.next)}`
    }
  }

  const listLetters = (status: 'open' | 'redriven') =>
    list(Letter, `${random.pick(urls('monitor'))}/dead-letters?status=${status}&topic=posta.requests&limit=100`)

  async function redriveAll(letters: readonly Letter[]): Promise<void> {
    const asked = letters.flatMap(({ id }) =>
      urls('monitor').map((url) => ask('POST', `${url}/dead-letters/${encodeURIComponent(id)}/redrive`, 5)),
    )
    await Promise.all(asked)
  }

  /** Resolves to what each monitor says of the chains, once no more events come in. */
  async function audits(): Promise<Snapshot['shown']['audits']> {
    const audits = new Map<string, v.InferOutput<typeof Audit>>()
    const untilMs = Date.now() + CATCH_UP_WITHIN_MS
    for (let before = -1; Date.now() < untilMs; ) {
      for (const url of urls('monitor')) {
        const audit = v.safeParse(Audit, await ask('GET', `${url}/audit/verify`, 30))
        if (audit.success) audits.set(url, audit.output)
      }
      const events = Math.max(...[...audits.values()].map((audit) => audit.events), 0)
      if (events === before) break
      before = events
      await Bun.sleep(1000)
    }
    return [...audits.values()]
  }

  return {
    async redrive() {
      const letters = await listLetters('open')
      const ours = letters.filter(({ redrivable, operation = '' }) => redrivable && fleet.misread.includes(operation))
      await redriveAll(ours.filter(() => random.chance(0.8)))
    },
    async redriveAgain(operations) {
      await redriveAll((await listLetters('redriven')).filter(({ operation = '' }) => operations.has(operation)))
    },
    async look(operations) {
      const { url: processorUrl } = fleet.member('processor')
      const results = new Map(
        (await list(Result, `${processorUrl}/results?limit=100`, 30)).map((each) => [each.id, each]),
      )
      const monitors = await audits()
      const timelines = new Map<string, string[]>()
      const { url: monitorUrl } = fleet.member('monitor')
      for (const id of operations.filter((_, index) => index % Math.ceil(operations.length / TIMELINES) === 0)) {
        const timeline = v.safeParse(Timeline, await ask('GET', `${monitorUrl}/operations/${id}/timeline`, 30))
        timelines.set(id, timeline.success ? timeline.output.items.map(({ type }) => type) : [])
      }
      return { results, timelines, audits: monitors }
    },
  }
}
