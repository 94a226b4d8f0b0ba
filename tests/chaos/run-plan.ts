import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { topics } from '../../common/messages/topics.ts'
import { startFakeApi } from '../../gateway/testing/fake-rates-api.ts'
import { readLedger } from '../../tools/provider/ledger.ts'
import { SETTLE_MS } from './check/outcomes.ts'
import { startClients } from './clients.ts'
import { embeddedParts } from './embedded-parts.ts'
import { expectedRates } from './expected-rates.ts'
import { createFleet, type OwnEnd } from './fleet.ts'
import { openHistory, readHistory } from './history.ts'
import { type Injected, injectAll } from './inject.ts'
import { createOperator } from './operator.ts'
import type { ChaosParts } from './parts.ts'
import type { Plan } from './plan.ts'
import { sendAgain } from './process-faults.ts'
import { startProviderProcess } from './provider-process.ts'
import { createRandom } from './random.ts'
import { readEvents, readGateway, readResults, readRuns } from './read-stores.ts'
import { realParts } from './real-parts.ts'
import type { Safeguard } from './safeguards.ts'
import type { OperationRow, Poison, Snapshot } from './snapshot.ts'

const LIMIT_USD = 300
const APPROVAL_ABOVE_USD = 25
const PEOPLE = 8
/** Between two submissions of one person, on average. FerretDB scans a collection at each query: it gets more time. */
const PAUSE_MS = { embedded: 300, real: 1000 }
const CALM_MS = 4000
/** Longer than the longest pause before a request is sent again. */
const LATER_MS = 60 * 60 * 1000
/** An operation that has been pending for so long without a fault has lost a message. */
const OLD_MS = 10_000
const SENT_AGAIN_WITHIN_MS = 120_000

export interface Run {
  readonly snapshot: Snapshot
  readonly injected: Injected
  readonly ownEnds: readonly OwnEnd[]
}

/** Runs the plan on services of its own in `dir`, and gathers all that the checker needs. Leaves no process behind. */
export async function runPlan(
  plan: Plan,
  options: { dir: string; without?: Safeguard | undefined; log: (line: string) => void },
): Promise<Run> {
  const { dir, without, log } = options
  // Without a safeguard some outcomes never come, so there is no need to wait for them as long.
  const settleMs = without ? SETTLE_MS / 3 : SETTLE_MS
  const random = createRandom(`${plan.seed}/${plan.parts}`)
  const [dataDir, logDir] = [join(dir, 'data'), join(dir, 'logs')]
  for (const each of [dataDir, logDir]) mkdirSync(each, { recursive: true })
  const historyPath = join(dir, 'history.jsonl')
  const databasePath = join(dataDir, 'gateway.db')

  await using cleanups = new AsyncDisposableStack()
  const rates = startFakeApi()
  cleanups.defer(rates.stop)
  const provider = await startProviderProcess({ dir, seed: plan.seed })
  cleanups.defer(provider.dispose)
  const fleet = await createFleet({
    logDir,
    environmentOf: (service) => ({
      HOST: '127.0.0.1',
      NODE_ENV: 'production',
      LOG_LEVEL: 'info',
      DATA_DIR: dataDir,
      DAILY_LIMIT_USD: String(LIMIT_USD),
      RATES_URL: rates.url,
      PAYOUT_URL: provider.url,
      APPROVAL_ABOVE_USD: String(APPROVAL_ABOVE_USD),
      GATEWAY_URL: gatewayUrl,
      TOKEN_ISSUER: 'http://gateway.example',
      CHAOS_SEED: `${plan.seed}/${service}`,
      CHAOS_WITHOUT: without,
      ...parts.environmentOf(service),
    }),
  })
  cleanups.defer(fleet.dispose)
  const gatewayUrl = fleet.member('gateway').url
  const parts: ChaosParts = plan.parts === 'real' ? await realParts(dataDir, gatewayUrl) : embeddedParts(dataDir)
  cleanups.defer(parts.dispose)

  await Promise.all(fleet.members().map((member) => member.up()))
  const note = openHistory(historyPath)
  const operator = await createOperator({
    dataDir,
    fleet,
    note,
    random: random.fork('operator'),
    mayLoseAnswers: () => parts.recreated.some(({ topic }) => topic === topics.requests),
  })
  const attending = operator.attend()
  const clients = startClients({
    urls: fleet.members('gateway').map(({ url }) => url),
    people: PEOPLE,
    pauseMs: PAUSE_MS[plan.parts],
    note,
    random: random.fork('clients'),
  })
  const poison: Poison[] = []
  const victims = { fleet, parts, rates, provider, poison, random: random.fork('faults'), redrive: operator.redrive }
  const injected = await injectAll(plan, victims, log)
  await provider.heal()
  for (const member of fleet.members()) if (!member.extra) await member.up()
  attending.finish()
  if (parts.recreated.length > 0) {
    const stuck = (await readRuns(parts.storeUrls.processor)).filter(({ state }) => state === 'stuck')
    await operator.redriveAgain(new Set(stuck.map(({ id }) => id)))
    await sendAgain(fleet, LATER_MS, () =>
      untilNothingIsPending(databasePath, OLD_MS, Date.now() + SENT_AGAIN_WITHIN_MS),
    )
  }
  const faultsEndedAtMs = Date.now()
  log(`The faults are over; ${clients.acknowledged()} operations were accepted.`)
  await operator.redrive()
  const { operations } = readGateway(databasePath)
  const deadLettered = operations.filter(({ errorCode }) => errorCode === 'dead-lettered')
  await operator.redriveAgain(new Set(deadLettered.map(({ id }) => id)))
  await Bun.sleep(CALM_MS)
  clients.calm()
  await Bun.sleep(CALM_MS)
  await clients.stop()
  // To look at all operations takes long. After this wait once is enough.
  await untilNothingIsPending(databasePath, 0, faultsEndedAtMs + settleMs)
  // What a redrive began goes on though gateway shows the failure by dead letter.
  await untilRunsHaveEnded(parts.storeUrls.processor, faultsEndedAtMs + settleMs)
  while ((await clients.lookAgain()) > 0 && Date.now() < faultsEndedAtMs + settleMs) await Bun.sleep(500)
  await attending.stop()
  const shown = await operator.look(readGateway(databasePath).operations.map(({ id }) => id))
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
    approvalAboveUsdE8: APPROVAL_ABOVE_USD * 1e8,
    faultsEndedAtMs,
    history: readHistory(historyPath),
    ...readGateway(databasePath),
    results: await readResults(parts.storeUrls.processor),
    runs: await readRuns(parts.storeUrls.processor),
    ledger: readLedger(provider.ledger),
    ...(await readEvents(parts.storeUrls.monitor)),
    messages: await parts.readTopics(),
    recreated: parts.recreated,
    poison,
    misread: fleet.misread,
    rates: await expectedRates(),
    shown,
    processes,
    files: readdirSync(dataDir).map((name) => ({ name, bytes: statSync(join(dataDir, name)).size })),
  }
  return { snapshot, injected, ownEnds: fleet.ownEnds }
}

/** Resolves when no operation older than `olderMs` is pending, or at `untilMs`. */
async function untilNothingIsPending(path: string, olderMs: number, untilMs: number): Promise<void> {
  const isPending = ({ status, createdAtMs }: OperationRow) =>
    status === 'pending' && createdAtMs <= Date.now() - olderMs
  while (readGateway(path).operations.some(isPending) && Date.now() < untilMs) await Bun.sleep(500)
}

/** Resolves when no run is under way any more, or at `untilMs`. */
async function untilRunsHaveEnded(storeUrl: string, untilMs: number): Promise<void> {
  while ((await readRuns(storeUrl)).some(({ state }) => state !== 'ended') && Date.now() < untilMs) await Bun.sleep(500)
}
