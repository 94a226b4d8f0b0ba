import * as v from 'valibot'
import { topics } from '../../../common/messages/topics.ts'
import type { Message, OperationRow, Progress, RunRecord, RunRow } from '../snapshot.ts'
import { recordOf } from './events.ts'
import type { Facts } from './facts.ts'
import { operationOf } from './payouts.ts'
import { type Violation, violation } from './violation.ts'

/** Every run recorded what the provider did, each step before the next, ended once, and all that is shown at gateway. */
export function* checkRuns(facts: Facts): Generator<Violation> {
  for (const run of facts.runs) {
    const operation = facts.operationOf.get(run.id)
    if (operation?.user !== run.user) yield violation('never submitted', run.id, `a run of ${run.user}`)
    else {
      if (run.state !== 'ended') yield violation('not terminal', run.id, `its run is ${run.state}`)
      yield* checkHistory(facts, run)
      yield* checkOutcome(facts, run, operation)
      yield* checkProgress(facts, run, operation)
    }
  }
  yield* checkEffects(facts)
}

function* checkHistory(facts: Facts, { id, records }: RunRow): Generator<Violation> {
  const broken = (detail: string) => violation('history broken', id, `${detail} in ${show(records)}`)
  if (records.some(({ n }, index) => n !== index)) yield broken('a number is missing')
  if (records.some(({ atMs }, index) => atMs < (records[index - 1]?.atMs ?? 0))) yield broken('time goes back')
  const ends = records.filter(({ kind }) => kind === 'ended')
  if (ends.length > 1 || (ends.length === 1 && records.at(-1)?.kind !== 'ended')) yield broken('more after the end')
  const done = records.filter(({ kind }) => kind === 'done').map(({ step }) => step)
  if (new Set(done).size < done.length) yield broken('a step is recorded twice')
  const undone = records.filter(({ kind }) => kind === 'undone').map(({ step }) => step)
  if (new Set(undone).size < undone.length || !undone.every((step) => done.includes(step)))
    yield broken('what was undone had not been done, or was undone twice')

  const [reserved, pays, paid] = [
    at(records, 'done', 'reserve'),
    at(records, 'started', 'pay'),
    at(records, 'done', 'pay'),
  ]
  const order = [at(records, 'started', 'reserve'), reserved, at(records, 'done', 'approve'), pays, paid]
  const present = [...order, at(records, 'done', 'settled')].filter((index) => index >= 0)
  if (present.some((index, before) => index < (present[before - 1] ?? 0)))
    yield broken('the steps are in another order')
  if (pays >= 0 && reserved < 0) yield broken('it began to pay before the reservation was recorded')
  if (reserved >= 0 && at(records, 'started', 'reserve') < 0) yield broken('the start of a step with undo is missing')
  if (paid >= 0 && pays < 0) yield broken('the start of the final step is missing')
  const failing = records.findIndex(({ kind }) => kind === 'failing')
  const code = records[failing]?.failure?.code
  if (pays >= 0 && pays < failing && (code === 'cancelled' || code === 'timed-out'))
    yield broken('it was cancelled past the point of no return')
  if (failing >= 0 && pays > failing) yield broken('it paid while it was failing')

  for (const [index, { n, kind }] of records.entries()) {
    const before = records[index - 1]
    const isRedriven = facts.deadLetters.some(
      (letter) => letter.operation === id && letter.status === 'redriven' && recordOf(letter.id) === before?.n,
    )
    if (kind === 'resumed' && !(before?.kind === 'stuck' && isRedriven)) yield broken(`${n}: nobody redrove it`)
    if (before?.kind === 'stuck' && !['resumed', 'failing', 'ended'].includes(kind)) yield broken(`${n}: it was stuck`)
  }
}

function* checkOutcome(facts: Facts, { id, redrive, records }: RunRow, operation: OperationRow): Generator<Violation> {
  const ended = records.find(({ kind }) => kind === 'ended')
  if (!ended) {
    if (operation.status !== 'pending') yield violation('history broken', id, `no end, and it ${operation.status}`)
    return
  }
  const { output, failure } = ended.outcome ?? {}
  const result = facts.resultOf.get(id)
  // A redrive that fails changes nothing: it stays the dead letter that it was.
  const code = failure && redrive ? 'dead-lettered' : failure?.code
  if (!Bun.deepEquals(output ?? undefined, result?.output ?? undefined) || code !== result?.error?.code)
    yield violation(
      'outcomes differ',
      id,
      `its run ${show([ended])}, the result ${result?.status} ${result?.error?.code}`,
    )
  const needed = ['reserve', 'pay', 'settled'].filter((step) => at(records, 'done', step) < 0)
  if (output && needed.length > 0) yield violation('history broken', id, `it succeeded without ${needed.join(', ')}`)
}

/** What the provider did and what runs recorded of it are the same. */
function* checkEffects(facts: Facts): Generator<Violation> {
  const idOf = (id: string, step: string) => {
    const result = facts.runOf.get(id)?.records.find((record) => record.kind === 'done' && record.step === step)?.result
    return v.is(WithId, result) ? result.id : undefined
  }
  for (const { id, key, state } of facts.ledger.reservations) {
    const operation = operationOf(key)
    if (idOf(operation, 'reserve') !== id)
      yield violation('history broken', operation, `reservation ${id} is not recorded`)
    const isUndone = at(facts.runOf.get(operation)?.records ?? [], 'undone', 'reserve') >= 0
    if (isUndone !== (state === 'released'))
      yield violation('history broken', operation, `undone: ${isUndone}, ${state}`)
  }
  for (const { id, key, reservation } of facts.ledger.payments) {
    const operation = operationOf(key)
    if (idOf(operation, 'pay') !== id || idOf(operation, 'reserve') !== reservation)
      yield violation('history broken', operation, `payment ${id} is not recorded`)
  }
}

const WithId = v.object({ id: v.string() })
/** What messages of progress say. */
const Told = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ n: v.number(), step: v.string(), status: v.string(), at: v.string() }),
)
/** By how much the clock of a processor may be wrong, and more. */
const CLOCKS_DIFFER_MS = 30_000

/** Gateway and the topic have the progress that the run recorded, by number. */
function* checkProgress(facts: Facts, { id, records }: RunRow, { progress }: OperationRow): Generator<Violation> {
  const told = new Map<number, Message>()
  const differs = (detail: string) => violation('progress differs', id, detail)
  for (const message of facts.progressOf.get(id) ?? []) {
    const read = v.safeParse(Told, message.value)
    if (!read.success) {
      yield differs('a message cannot be read')
      continue
    }
    const { n, step, status, at } = read.output
    const before = told.get(n)
    if (before && (before.value !== message.value || before.id !== message.id))
      yield differs(`${n} was told differently`)
    told.set(n, message)
    if (!isSame({ step, status, at }, progressOf(records[n]))) yield differs(`the topic has ${n}: ${step} ${status}`)
  }
  const isGone = (record: RunRecord | undefined) =>
    record !== undefined && facts.mayBeDeleted(topics.results, record.atMs - CLOCKS_DIFFER_MS)
  for (const record of records) {
    const { n } = record
    const expected = progressOf(record)
    if (expected && !told.has(n) && !isGone(record))
      yield differs(`${n}, ${expected.step} ${expected.status}, was never told`)
    const kept = progress[n]
    if (!isSame(kept, expected) && (kept || !isGone(record)))
      yield differs(`gateway has ${n} as ${JSON.stringify(kept)}`)
  }
  for (const n of Object.keys(progress))
    if (!records[Number(n)]) yield differs(`gateway has ${n}, which is not recorded`)
  yield* checkShown(facts, id, Object.values(progress))
}

/** At the end clients saw all of it, too. Numbers as keys are in order. */
function* checkShown(facts: Facts, id: string, progress: readonly Progress[]): Generator<Violation> {
  const isLast = facts.seen.get(id)?.findLast(({ how, operation }) => how === 'last' && operation?.status !== 'pending')
  // What a redrive began is shown as failed while it goes on.
  if (!isLast || facts.misread.includes(id)) return
  if (!Bun.deepEquals(isLast.operation?.progress ?? [], progress))
    yield violation('progress differs', id, `a client saw ${isLast.operation?.progress?.length} of ${progress.length}`)
}

/** The progress that a record makes; undefined if none. */
function progressOf(record: RunRecord | undefined): Progress | undefined {
  if (!record || !['done', 'undone', 'waiting'].includes(record.kind)) return undefined
  return { step: record.step ?? '', status: record.kind, at: new Date(record.atMs).toISOString() }
}

function isSame(a: Progress | undefined, b: Progress | undefined): boolean {
  return a?.step === b?.step && a?.status === b?.status && a?.at === b?.at
}

/** Where the record is; -1 where there is none. */
function at(records: readonly RunRecord[], kind: string, step: string): number {
  return records.findIndex((record) => record.kind === kind && record.step === step)
}

function show(records: readonly RunRecord[]): string {
  return records.map(({ n, kind, step = '' }) => `${n} ${kind} ${step}`.trimEnd()).join(', ')
}
