import * as v from 'valibot'
import type { ServiceName } from '../../common/name.ts'
import { Tokens } from '../../tools/client.ts'
import { tryCall } from '../testing/try-call.ts'
import { addOperator, PASSWORD } from '../testing/users.ts'
import type { Fleet } from './fleet.ts'
import type { Note } from './history.ts'
import type { Random } from './random.ts'
import type { Snapshot } from './snapshot.ts'
import { type Told, tell } from './tell.ts'

/** An operator, who redrives dead letters, answers payouts that wait, and looks at what the services show. */
export interface Operator {
  /** Begins to answer payouts that wait and to redrive those that are stuck, some of them. */
  attend(): Attending
  /** Redrives most of the dead letters of misread requests, each several times, by every monitor. */
  redrive(): Promise<void>
  /** Redrives the dead letters of these operations again: a message of the first redrive was lost with its topic. */
  redriveAgain(operations: ReadonlySet<string>): Promise<void>
  /** What processor and monitor show once monitor has caught up, with the timelines of some of the operations. */
  look(operations: readonly string[]): Promise<Snapshot['shown']>
}

interface Attending {
  /** From now on nothing is left waiting or stuck. Some of what is stuck is discarded. */
  finish(): void
  /** Resolves when the work under way is done. */
  stop(): Promise<void>
}

const ANSWER_WITHIN_MS = 30_000
const ATTEND_EVERY_MS = 1000
const UNHEARD_LOOKS = 5
const CATCH_UP_WITHIN_MS = 120_000
const TIMELINES = 30

const Letter = v.object({ id: v.string(), redrivable: v.boolean(), operation: v.optional(v.string()) })
type Letter = v.InferOutput<typeof Letter>
const Me = v.object({ id: v.string() })
const Run = v.object({ id: v.string(), state: v.string(), waitsFor: v.optional(v.string()) })
type Run = v.InferOutput<typeof Run>
const RunWithHistory = v.object({ history: v.array(v.object({ kind: v.string(), step: v.optional(v.string()) })) })
/** A dead letter of a run has the number of its record after the position and the time of the request. */
const OF_RUN = /^posta\.requests(?:\.\d+){3}\.\d+$/
const Result = v.object({ id: v.string(), status: v.string() })
const Timeline = v.object({ items: v.array(v.object({ type: v.string() })) })
const Audit = v.object({ ok: v.boolean(), events: v.number() })

export async function createOperator(options: {
  readonly dataDir: string
  readonly fleet: Fleet
  readonly note: Note
  readonly random: Random
  /** Whether the topic that answers are on was deleted: gateway takes each answer once, and sends it once. */
  readonly mayLoseAnswers: () => boolean
}): Promise<Operator> {
  const { dataDir, fleet, note, random, mayLoseAnswers } = options
  const email = await addOperator({ DATA_DIR: dataDir })
  const urls = (service: ServiceName) => fleet.members(service).flatMap(({ url, extra }) => (extra ? [] : [url]))
  let id = ''
  let token = ''
  /** Payouts that need no answer any more. */
  const answered = new Set<string>()
  /** How often payouts were still seen to wait for the answer that they were given. */
  const unheard = new Map<string, number>()

  /** Resolves to the body of an answer below 400; to undefined after a refusal or so many tries without an answer. */
  async function ask(method: 'GET' | 'POST', url: string, tries: number, body?: object): Promise<unknown> {
    for (let attempt = 0; attempt < tries; attempt++) {
      const answer = await tryCall(method, url, { token, body, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
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
    if (id !== '') return
    const me = await tryCall('GET', `${random.pick(urls('gateway'))}/auth/me`, { token, signal })
    if (!v.is(Me, me.body)) return
    id = me.body.id
    note({ kind: 'operator', user: id })
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

  const listLetters = (status: 'open' | 'redriven', tries?: number) =>
    list(Letter, `${random.pick(urls('monitor'))}/dead-letters?status=${status}&topic=posta.requests&limit=100`, tries)

  async function redriveAll(letters: readonly Letter[]): Promise<void> {
    const asked = letters.flatMap(({ id }) =>
      urls('monitor').map((url) => ask('POST', `${url}/dead-letters/${encodeURIComponent(id)}/redrive`, 5)),
    )
    await Promise.all(asked)
  }

  /** Answers one payout: approves it or not, and sometimes changes their mind, which must not count. */
  async function answer({ id: run }: Run): Promise<void> {
    const told: Told = { what: 'approve', approved: random.chance(0.75) }
    if (await tell(run, told, by)) answered.add(run)
    if (random.chance(0.2)) await tell(run, { ...told, approved: !told.approved }, by)
  }

  const by = {
    user: () => ({ id, token }),
    anyUrl: () => random.pick(urls('gateway')),
    note,
    logIn,
    pause: (tries: number) => Bun.sleep(Math.min(200 * 2 ** tries, 2000)),
  }

  /** Cancels a payout whose answer was lost with the topic: it would wait for days. */
  async function cancelUnheard({ id: run }: Run): Promise<void> {
    const looks = (unheard.get(run) ?? 0) + 1
    unheard.set(run, looks)
    if (looks % UNHEARD_LOOKS === 0) await tell(run, { what: 'cancel' }, by)
  }

  const aProcessor = () => random.pick(urls('processor'))

  /** Answers payouts that wait for an answer, and now and then one that does not. */
  async function answerSome(all: boolean): Promise<void> {
    const waiting = await list(Run, `${aProcessor()}/runs?state=waiting&type=payout&limit=100`, 2)
    const unanswered = waiting.filter(({ waitsFor }) => waitsFor === 'answer')
    const asked = unanswered.filter(({ id }) => !answered.has(id))
    if (all && mayLoseAnswers()) await Promise.all(unanswered.filter(({ id }) => answered.has(id)).map(cancelUnheard))
    const newest = v.safeParse(v.object({ items: v.array(Run) }), await ask('GET', `${aProcessor()}/runs?limit=5`, 1))
    const others = newest.success && !all ? newest.output.items.filter(() => random.chance(0.1)) : []
    await Promise.all([...asked.filter(() => all || random.chance(0.4)), ...others].map(answer))
  }

  async function decideOnStuck(all: boolean): Promise<void> {
    const stuck = (await listLetters('open', 2)).filter(({ id }) => OF_RUN.test(id))
    for (const letter of stuck.filter(() => all || random.chance(0.2)))
      if (!(all && random.chance(0.4) && (await discard(letter)))) await redriveAll([letter])
  }

  /** Discards what has paid nothing and undoes nothing yet. False: it has to be redriven. */
  async function discard({ id: deadLetter, operation = '' }: Letter): Promise<boolean> {
    const run = v.safeParse(RunWithHistory, await ask('GET', `${aProcessor()}/runs/${operation}`, 5))
    const goesOn = (each: { kind: string; step?: string | undefined }) => each.kind === 'failing' || each.step === 'pay'
    if (!run.success || run.output.history.some(goesOn)) return false
    note({ kind: 'discard', user: id, id: operation, deadLetter })
    const url = `${random.pick(urls('monitor'))}/dead-letters/${encodeURIComponent(deadLetter)}/discard`
    await ask('POST', url, 5, { reason: 'It is a fault run.' })
    return true
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
    attend() {
      let finishing = false
      let stopping = false
      const working = (async () => {
        for (; !stopping; await Bun.sleep(ATTEND_EVERY_MS)) {
          await answerSome(finishing)
          await decideOnStuck(finishing)
        }
      })()
      return {
        finish() {
          finishing = true
        },
        async stop() {
          stopping = true
          await working
        },
      }
    },
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
