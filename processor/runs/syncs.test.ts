import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { countSyncs, hasStrace } from '@posta/common/testing/count-syncs.ts'

const processor = join(import.meta.dir, '..')
const common = join(import.meta.dir, '../../common')

/**
 * The syncs of processor's file from `admit` until a run has ended: `run` are those of the run's store, `settle` the one that
 * makes its outcome the result. What `decide` stored before is not counted. The broker is a fake, so no sync is the broker's.
 * @param code the body of a performer's `run`
 */
async function syncsOf(code: string): Promise<Record<string, number>> {
  return await countSyncs(`
    import { createLog } from '${common}/service/log.ts'
    import { createMetrics } from '${common}/service/metrics.ts'
    import { systemDeps } from '${common}/service/deps.ts'
    import { eventually } from '${common}/testing/eventually.ts'
    import { createFakeBroker } from '${common}/testing/fake-broker.ts'
    import { sample } from '${common}/testing/sample.ts'
    import { performers } from '${processor}/performers/performers.ts'
    import { createRunner } from '${processor}/runs/runner.ts'
    import { openEmbedded } from '${processor}/store/embedded.ts'
    import { newRun } from '${processor}/testing/run-to-end.ts'

    const { results, runs, close } = openEmbedded(folder + '/processor.db')
    const settle = async (outcomes) => {
      mark('settle')
      await results.settle(outcomes)
      mark('run')
    }
    const run = async ({ step, sleep }) => { ${code} }
    const runner = createRunner({
      runs,
      results: { get: results.get, settle },
      broker: createFakeBroker().broker,
      performers: { ...performers, [sample.type]: { ...performers[sample.type], run } },
      settings: new Map(),
      log: createLog('test', 'warn'),
      metrics: createMetrics('test'),
      deps: systemDeps,
    })
    const createdAt = new Date().toISOString()
    const { head, ...given } = newRun({ createdAt, decidedAtMs: Date.now() })
    const { id, user, type, input, facts, version, decided } = given
    await results.append([
      { id, user, type, input, facts, version, decided, createdAt, decidedAt: createdAt, status: 'running' },
    ])
    await runner.start()
    mark('run')
    await runner.admit([given])
    await eventually(async () => (await runs.get(id))?.head.state === 'ended')
    if ((await results.get(id)).status !== 'succeeded') throw new Error('It did not succeed.')
    mark('end')
    await runner.close(1000)
    await close()`)
}

const output = '{ output: sample.output() }'

test.skipIf(!hasStrace)(
  'under strace: a run syncs its creation, each step and its end, and one more makes the outcome the result',
  async () => {
    const syncs = await syncsOf(`
      for (const name of ['a', 'b', 'c']) await step(name, async () => name)
      return ${output}`)
    expect(syncs).toEqual({ run: 3 + 2, settle: 1 })
  },
)

test.skipIf(!hasStrace)(
  'under strace: the start of a step that can be undone, or is the point of no return, is one sync more',
  async () => {
    const syncs = await syncsOf(`
      await step('a', async () => 'a', { undo: async () => {} })
      await step('b', async () => 'b', { final: true })
      await step('c', async () => 'c')
      return ${output}`)
    expect(syncs).toEqual({ run: 3 + 2 + 2, settle: 1 })
  },
)

test.skipIf(!hasStrace)(
  'under strace: an attempt that fails is no sync: the run is left and taken again without',
  async () => {
    const syncs = await syncsOf(`
      await step('a', async ({ attempt }) => { if (attempt < 3) throw new Error('Not yet.') }, { firstPauseMs: 1 })
      return ${output}`)
    expect(syncs).toEqual({ run: 1 + 2, settle: 1 })
  },
)
