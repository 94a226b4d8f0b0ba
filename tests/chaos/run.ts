import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { startFakeApi } from '../../gateway/testing/fake-rates-api.ts'
import { SETTLE_MS } from './check/outcomes.ts'
import { startClients } from './clients.ts'
import { embeddedParts } from './embedded-parts.ts'
import { createFleet, type Fleet, type OwnEnd } from './fleet.ts'
import { openHistory, readHistory } from './history.ts'
import { type Injected, injectAll, sendAgain } from './inject.ts'
import { createOperator, type Operator } from './operator.ts'
import type { Plan } from './plan.ts'
import { createRandom } from './random.ts'
import { expectedRates } from './rates.ts'
import { readEvents, readGateway, readResults } from './read-stores.ts'
import { realParts } from './real-parts.ts'
import type { Safeguard } from './safeguards.ts'
import type { OperationRow, Poison, Snapshot } from './snapshot.ts'

const LIMIT_USD = 300
const PEOPLE = 8
/** Between two submissions of one person, on average. The MongoDB-wire server looks at a whole collection for each question: longer. */
const PAUSE_MS = { embedded: 300, real: 1000 }
const CALM_MS = 4000
/** More than the pauses after which a request is sent again, however often it was already. */
const LATER_MS = 60 * 60 * 1000
/** What has been pending for so long while no fault is in the way is not just on its way. */
const OLD_MS = 10_000
/** Monitor may take longer to have seen everything. */
const CATCH_UP_MS = 120_000

export interface Run {
  readonly snapshot: Snapshot
  readonly injected: Injected
  readonly ownEnds: readonly OwnEnd[]
}

/** Runs the plan on services of its own, below `dir`, and gathers all that the checker needs. Leaves no process behind. */
export async function runPlan(
  plan: Plan,
  options: { dir: string; without?: Safeguard | undefined; log: (line: string) => void },
): Promise<Run> {
  const { dir, without, log } = options
  // What is missing will not come: then there is no need to wait for it as long as it may take.
  const settleMs = without ? SETTLE_MS / 3 : SETTLE_MS
  const random = createRandom(`${plan.seed}/${plan.parts}`)
  const dataDir = join(dir, 'data')
  const logDir = join(dir, 'logs')
  for (const each of [dataDir, logDir]) mkdirSync(each, { recursive: true })
  const historyPath = join(dir, 'history.jsonl')
  const parts = plan.parts === 'real' ? await realParts(dataDir) : embeddedParts(dataDir)
  const rates = startFakeApi()
  const databasePath = join(dataDir, 'gateway.db')
  let fleet: Fleet | undefined
  try {
    fleet = await createFleet({
      replicas: plan.replicas,
      logDir,
      environmentOf: (service) => ({
        HOST: '127.0.0.1',
        NODE_ENV: 'production',
        LOG_LEVEL: 'info',
        DATA_DIR: dataDir,
        DAILY_LIMIT_USD: String(LIMIT_USD),
        RATES_URL: rates.url,
        TOKEN_ISSUER: 'http://gateway.example',
        CHAOS_SEED: `${plan.seed}/${service}`,
        ...(without && { CHAOS_WITHOUT: without }),
        ...parts.environmentOf(service),
      }),
    })
    await parts.setGateway(fleet.member({ service: 'gateway', index: 0 }).url)
    await Promise.all(fleet.members().map((member) => member.up()))
    const operator = await createOperator({ dataDir, fleet, random: random.fork('operator') })
    const urls = fleet.members('gateway').map(({ url }) => url)
    const clients = startClients({
      urls,
      people: PEOPLE,
      pauseMs: PAUSE_MS[plan.parts],
      history: openHistory(historyPath),
      random: random.fork('clients'),
    })
    const poison: Poison[] = []
    const injected = await injectAll(plan, {
      fleet,
      parts,
      rates,
      poison,
      random: random.fork('faults'),
      redrive: () => operator.redrive(),
      log,
    })
    for (const member of fleet.members()) if (!member.extra) await member.up()
    if (parts.remade.length > 0)
      await sendAgain(fleet, LATER_MS, () => untilNothingIsPending(databasePath, OLD_MS, Date.now() + CATCH_UP_MS))
    const faultsEndedAtMs = Date.now()
    log(`${clients.acknowledged} operations; the faults are over`)
    await operator.redrive()
    await operator.redriveAgain(failedByDeadLetter(databasePath))
    await Bun.sleep(CALM_MS)
    clients.calm()
    await Bun.sleep(CALM_MS)
    await clients.stop()
    // So that one look at each is enough: to look at all of them takes its time.
    await untilNothingIsPending(databasePath, 0, faultsEndedAtMs + settleMs)
    while ((await clients.lookAgain()) > 0 && Date.now() < faultsEndedAtMs + settleMs) await Bun.sleep(500)
    const shown = await look(
      fleet,
      operator,
      readGateway(databasePath).operations.map(({ id }) => id),
    )
    const processes = await Promise.all(
      fleet.members().map(async (member) => ({
        name: `${member.service} ${member.index}`,
        maxRssBytes: member.maxRssBytes(),
        endedBy: member.pid() === undefined ? 0 : await member.down(),
      })),
    )
    const snapshot: Snapshot = {
      parts: plan.parts,
      limitUsdE8: LIMIT_USD * 1e8,
      faultsEndedAtMs,
      history: readHistory(historyPath),
      ...readGateway(databasePath),
      results: await readResults(parts.storeUrls.processor),
      ...(await readEvents(parts.storeUrls.monitor)),
      messages: await parts.readTopics(),
      remade: parts.remade,
      poison,
      misread: fleet.misread,
      rates: await expectedRates(),
      shown,
      processes,
      files: filesOf(dataDir),
    }
    return { snapshot, injected, ownEnds: fleet.ownEnds }
  } finally {
    await fleet?.dispose()
    await rates.stop()
    await parts.dispose()
  }
}

function failedByDeadLetter(path: string): ReadonlySet<string> {
  return new Set(
    readGateway(path).operations.flatMap(({ id, errorCode }) => (errorCode === 'dead-lettered' ? [id] : [])),
  )
}

/** Until nothing that is older than that is pending, or it is too late. */
async function untilNothingIsPending(path: string, olderMs: number, untilMs: number): Promise<void> {
  const isPending = ({ status, createdAtMs }: OperationRow) =>
    status === 'pending' && createdAtMs <= Date.now() - olderMs
  while (readGateway(path).operations.some(isPending) && Date.now() < untilMs) await Bun.sleep(500)
}

const Results = v.object({
  items: v.array(v.object({ id: v.string(), status: v.string() })),
  next: v.optional(v.string()),
})
const Timeline = v.object({ items: v.array(v.object({ type: v.string() })) })
const Audit = v.object({ ok: v.boolean(), events: v.number() })
const TIMELINES = 30

/** What processor and monitor show, once monitor has caught up. */
async function look(fleet: Fleet, operator: Operator, ids: readonly string[]): Promise<Snapshot['shown']> {
  const { url: processorUrl } = fleet.member({ service: 'processor', index: 0 })
  const results = new Map<string, { status: string }>()
  let next: string | undefined = ''
  while (next !== undefined) {
    const cursor: string = next && `&cursor=${encodeURIComponent(next)}`
    const page = v.safeParse(Results, await operator.get(`${processorUrl}/results?limit=100${cursor}`))
    if (!page.success) break
    for (const { id, status } of page.output.items) results.set(id, { status })
    next = page.output.next
  }
  const audits = new Map<string, v.InferOutput<typeof Audit>>()
  const untilMs = Date.now() + CATCH_UP_MS
  for (let events = -1; Date.now() < untilMs; ) {
    for (const { url, extra } of fleet.members('monitor')) {
      const audit = extra ? undefined : v.safeParse(Audit, await operator.get(`${url}/audit/verify`))
      if (audit?.success) audits.set(url, audit.output)
    }
    const now = Math.max(...[...audits.values()].map((audit) => audit.events), 0)
    if (now === events) break
    events = now
    await Bun.sleep(1000)
  }
  const timelines = new Map<string, string[]>()
  const { url: monitorUrl } = fleet.member({ service: 'monitor', index: 0 })
  for (const id of ids.filter((_, index) => index % Math.ceil(ids.length / TIMELINES) === 0)) {
    const timeline = v.safeParse(Timeline, await operator.get(`${monitorUrl}/operations/${id}/timeline`))
    timelines.set(id, timeline.success ? timeline.output.items.map(({ type }) => type) : [])
  }
  return { results, timelines, audits: [...audits.values()] }
}

function filesOf(dir: string): { name: string; bytes: number }[] {
  return readdirSync(dir).map((name) => ({ name, bytes: statSync(join(dir, name)).size }))
}
