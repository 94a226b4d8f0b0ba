import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Broker } from '@posta/common/broker/broker.ts'
import { openBroker } from '@posta/common/broker/open.ts'
import type { Consumer } from '@posta/common/consumer/subscription.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { headerText, type Outgoing } from '@posta/common/messages/message.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { createMetrics } from '@posta/common/service/metrics.ts'
import type { ProblemCode } from '@posta/common/service/problem.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import type { OpenDatabase } from '../database/open.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources, progressOf, submission } from '../testing/operations.ts'
import { createWaiters, type Waiters } from './await-outcome.ts'
import type { Progress } from './keep-progress.ts'
import type { Operation } from './operation.ts'
import { createRead } from './read.ts'
import { type Completed, receiveResults } from './receive-results.ts'
import { createSubmit } from './submit.ts'

const log = createLog('gateway', 'silent')
const user = 'ana'

let folder: ReturnType<typeof temporaryFolder>
let opened: OpenDatabase
let broker: Broker
let results: Consumer
/** Those of the gateway that receives the results, and of another gateway with the same database. */
let everyWaiters: Waiters[]
let completed: Completed[]
let progressed: string[]

beforeEach(async () => {
  completed = []
  progressed = []
  folder = temporaryFolder()
  opened = await openTemporary()
  const { database, writer } = opened
  const read = createRead(database)
  const [here, elsewhere] = [createWaiters({ database, read, log }), createWaiters({ database, read, log })]
  everyWaiters = [here, elsewhere]
  broker = openBroker({ url: `file:${join(folder.path, 'broker.db')}`, clientId: 'gateway', log, deps: systemDeps })
  results = receiveResults({
    broker,
    writer,
    onCompleted(operations) {
      completed.push(...operations)
      here.wake(operations.map(({ id }) => id))
    },
    onProgressed(ids) {
      progressed.push(...ids)
      here.wakeWatchers(ids)
    },
    log,
    metrics: createMetrics('gateway'),
    deps: systemDeps,
  })
  await results.start()
})
afterEach(async () => {
  await results.close()
  await broker.close()
  await opened.close()
  folder.remove()
})

const submit = (idempotencyKey?: string) =>
  createSubmit({
    ...opened,
    sources: fixedSources,
    offered: everyType,
    onAccepted: () => {},
    deps: systemDeps,
  })({ user, submission, idempotencyKey })
const read = (id: string) => createRead(opened.database).one(user, id)
const within10s = () => AbortSignal.timeout(10_000)

interface Result {
  readonly error?: ProblemCode
  readonly redrive?: string
  /** Of the output: see `sample`. */
  readonly n?: number
}

function resultOf(operation: string, { error, redrive, n }: Result): Outgoing {
  const time = new Date().toISOString()
  const attributes = { id: `${operation}.${redrive ?? 'result'}`, time, subject: operation, redrive }
  const data = { user, operation, operationType: sample.type, createdAt: time, completedAt: time } as const
  if (error)
    return encode({
      ...attributes,
      type: 'posta.operation.failed',
      data: { ...data, error: { code: error, message: 'It failed.' } },
    })
  return encode({ ...attributes, type: 'posta.operation.succeeded', data: { ...data, output: sample.output(n) } })
}

/** Delivers the results. Resolves once they are applied: they come before the result of another operation, which is seen. */
async function receive(id: string, of: readonly Result[], together = true): Promise<void> {
  const behind = (await submit()).id
  const messages = [...of.map((result) => resultOf(id, result)), resultOf(behind, {})]
  for (const batch of together ? [messages] : messages.map((message) => [message])) await broker.publish(batch)
  await eventually(async () => (await read(behind)).status !== 'pending')
}

const deadLettered = { error: 'dead-lettered' } as const

describe.each([
  ['in one batch', true],
  ['one after the other', false],
])('of results that arrive %s', (_, together) => {
  test.each<[string, Result[], ProblemCode | 'succeeded']>([
    ['a redrive turns a failure by dead letter into a success', [deadLettered, { redrive: 'r1' }], 'succeeded'],
    ['a plain success does not', [deadLettered, {}], 'dead-lettered'],
    [
      'a redrive that fails changes nothing',
      [deadLettered, { error: 'limit-exceeded', redrive: 'r1' }],
      'dead-lettered',
    ],
    ['a redrive changes no other failure', [{ error: 'limit-exceeded' }, { redrive: 'r1' }], 'limit-exceeded'],
    ['a redrive changes no success', [{}, { ...deadLettered, redrive: 'r1' }], 'succeeded'],
    ['the answer to a redrive may come before the failure', [{ redrive: 'r1' }, deadLettered], 'succeeded'],
    ['a second redrive changes nothing', [deadLettered, { redrive: 'r1' }, { redrive: 'r2', n: 2 }], 'succeeded'],
    [
      'a redrive after one that failed succeeds',
      [deadLettered, { ...deadLettered, redrive: 'r1' }, { redrive: 'r2' }],
      'succeeded',
    ],
  ])('%s', async (_, of, outcome) => {
    const { id } = await submit()
    await receive(id, of, together)
    const operation = await read(id)
    expect(operation.error?.code ?? operation.status).toBe(outcome)
    if (outcome === 'succeeded') expect(operation).toMatchObject({ output: sample.output() })
    else expect(operation).not.toHaveProperty('output')
  })
})

test('a redrive that arrives together with a plain success still turns the failure by dead letter into a success', async () => {
  const { id } = await submit()
  await receive(id, [deadLettered])
  await receive(id, [{}, { redrive: 'r1' }])
  expect((await read(id)).status).toBe('succeeded')
})

test('watchers see that it is dead-lettered, and their watch ends; those who watch after the redrive see the success', async () => {
  const { id } = await submit('order-1')
  const watch = async (waiters: Waiters) => {
    const seen: Operation[] = []
    for await (const operation of waiters.changes(user, id, within10s())) seen.push(operation)
    return seen.map(({ status, error }) => error?.code ?? status)
  }
  const began = everyWaiters.map((waiters) => [watch(waiters), waiters.awaitOutcome(user, id, within10s())] as const)
  await receive(id, [deadLettered])
  for (const [watched, waited] of began) {
    expect((await watched).join()).toMatch(/^(?:pending,)?dead-lettered$/)
    expect(await waited).toMatchObject({ status: 'failed', error: { code: 'dead-lettered' } })
  }
  for (const waiters of everyWaiters) expect(await watch(waiters)).toEqual(['dead-lettered'])
  expect(await submit('order-1')).toMatchObject({ id, status: 'failed' })

  await receive(id, [{ redrive: 'r1' }])
  for (const waiters of everyWaiters) {
    expect(await watch(waiters)).toEqual(['succeeded'])
    expect(await waiters.awaitOutcome(user, id, within10s())).toMatchObject({ status: 'succeeded' })
  }
  const again = await submit('order-1')
  expect(again).toMatchObject({ id, status: 'succeeded', output: sample.output() })
  expect(again).not.toHaveProperty('error')
  const { items } = await createRead(opened.database).page(user, { limit: 10 })
  expect(items.find((each) => each.id === id)).toEqual(again)
})

test("a result that names another user does not keep out the operation's own result of the same batch", async () => {
  const { id } = await submit()
  const own = resultOf(id, {})
  const foreign = { ...own, value: Buffer.from(Buffer.from(own.value).toString().replace('"ana"', '"eve"')) }
  await broker.publish([foreign, own])
  await eventually(async () => (await read(id)).status === 'succeeded')
})

test('an operation completes once, though its result comes twice in one batch', async () => {
  const { id } = await submit()
  await broker.publish([resultOf(id, {}), resultOf(id, {})])
  await eventually(async () => (await read(id)).status === 'succeeded')
  await eventually(() => results.lag().every(({ lag }) => lag === 0))
  expect(completed.map((each) => each.id)).toEqual([id])
})

const toMessage = (data: Progress) => {
  const time = data.at
  return encode({
    id: `${data.operation}.progress.${data.n}`,
    type: 'posta.operation.progressed',
    time,
    subject: data.operation,
    data,
  })
}

test('watchers at every gateway see progress and then the outcome; the outcome keeps the progress', async () => {
  const { id } = await submit()
  const seen: string[][] = []
  const watches = everyWaiters.map(async (waiters, index) => {
    for await (const { status, progress = [] } of waiters.changes(user, id, within10s()))
      seen[index] = [...(seen[index] ?? []), `${status} ${progress.length}`]
  })
  const haveSeen = (count: number) => eventually(() => watches.every((_, index) => seen[index]?.length === count))
  await haveSeen(1)
  await broker.publish([toMessage(progressOf(id, 0))])
  await haveSeen(2)
  await broker.publish([toMessage(progressOf(id, 1)), resultOf(id, {}), toMessage(progressOf(id, 2))])
  await Promise.all(watches)
  for (const each of seen) expect(each).toEqual(['pending 0', 'pending 1', 'succeeded 3'])
  expect(await read(id)).toMatchObject({
    status: 'succeeded',
    progress: [{ step: 'step-0' }, { step: 'step-1' }, { step: 'step-2' }],
  })
  expect(completed.map((each) => each.id)).toEqual([id])
})

test('what is of no operation of this user, or fits no contract, is a dead letter, and what came with it is kept', async () => {
  const { id } = await submit()
  const letters: string[] = []
  const reader = await broker.subscribe(groups.monitor, [topics.deadLetters], async ({ messages }) => {
    letters.push(...messages.map((message) => headerText(message, 'posta-reason') ?? ''))
  })
  const [succeeded, { [sample.graphql.output]: text }] = [resultOf(id, {}), sample.output()]
  await broker.publish([
    toMessage(progressOf(id, 0, { user: 'eve' })),
    toMessage(progressOf('none', 0)),
    resultOf('gone', {}),
    resultOf('lost', deadLettered),
    { ...succeeded, value: Buffer.from(Buffer.from(succeeded.value).toString().replace(JSON.stringify(text), '1')) },
    toMessage(progressOf(id, 1)),
  ])
  await eventually(() => letters.length === 5)
  const unknown = [id, 'none', 'gone', 'lost'].map((each) => `There is no operation ${each} of this user.`)
  expect(letters.toSorted()).toEqual([...unknown, `The output does not fit the schema of ${sample.type}.`].toSorted())
  expect(await read(id)).toMatchObject({ status: 'pending', progress: [{ step: 'step-1' }] })
  expect({ completed, progressed }).toEqual({ completed: [], progressed: [id] })
  await reader.close()
})
