import { insertNew } from '@posta/common/storage/mongo-database.ts'
import type { Collection, IndexDescription } from 'mongodb'
import * as v from 'valibot'
import {
  Head,
  type Kind,
  NewRun,
  type Run,
  RunInput,
  type RunInputKey,
  RunRecord,
  type RunState,
  type Runs,
} from './runs.ts'

/**
 * `body` is JSON text, here and in records and inputs: it holds what performers and clients say, and JSON knows no bound on
 * the names of members and on how deep they are nested, as BSON does. Beside it stands what is looked up by.
 */
export interface RunDocument extends Pick<NewRun, 'user' | 'version' | 'createdAt'> {
  readonly _id: string
  readonly type: string
  readonly head: Head
  readonly body: string
}

/** `_id` is `<run>/<n>`: of several writers of one number, one inserts it. */
export interface RecordDocument {
  readonly _id: string
  readonly run: string
  readonly n: number
  readonly body: string
}

/** `_id` is `<run>/<user>/<name>`. */
export interface InputDocument {
  readonly _id: string
  readonly run: string
  readonly atMs: number
  readonly noticed: boolean
  readonly body: string
}

/** `_id` is the holder. */
export interface BeatDocument {
  readonly _id: string
  readonly beat: number
}

/** `_id` is the type. */
export interface PausedTypeDocument {
  readonly _id: string
}

/** One for each query. `_id` has its own. What `due` filters by is in the index that it is ordered by. */
export const runIndexes: readonly IndexDescription[] = [
  { key: { type: 1, version: 1, 'head.state': 1, 'head.dueAtMs': 1, _id: 1, user: 1, 'head.epoch': 1 } },
  { key: { 'head.holder': 1 } },
  { key: { 'head.state': 1, createdAt: 1 } },
  { key: { user: 1, _id: -1 } },
  { key: { type: 1, _id: -1 } },
  { key: { 'head.state': 1, _id: -1 } },
]
export const recordIndexes: readonly IndexDescription[] = [{ key: { run: 1, n: 1 } }]
export const inputIndexes: readonly IndexDescription[] = [
  { key: { run: 1 } },
  { key: { noticed: 1, atMs: 1, _id: 1 } },
  { key: { atMs: 1 } },
]

export interface RunCollections {
  readonly runs: Collection<RunDocument>
  readonly runRecords: Collection<RecordDocument>
  readonly runInputs: Collection<InputDocument>
  readonly beats: Collection<BeatDocument>
  readonly pausedTypes: Collection<PausedTypeDocument>
}

/**
 * Runs in five collections. What the port promises of inserts rests on unique ids, which every server has. A head changes by
 * an update whose filter has the epoch and the holder: atomic on MongoDB, and on FerretDB only nearly.
 */
export function mongoRuns(collections: () => Promise<RunCollections>): Runs {
  async function toInputs(find: (inputs: Collection<InputDocument>) => { toArray(): Promise<InputDocument[]> }) {
    const { runInputs } = await collections()
    const documents = await find(runInputs).toArray()
    return documents.map(({ body }) => v.parse(RunInput, JSON.parse(body)))
  }

  return {
    async create(created) {
      const { runs } = await collections()
      return insertNew(runs, created.map(toDocument))
    },

    async get(id) {
      const { runs } = await collections()
      return toRun(await runs.findOne({ _id: id }))
    },

    async getMany(ids) {
      const { runs } = await collections()
      return toRuns(await runs.find({ _id: { $in: [...ids] } }).toArray())
    },

    async append(appended) {
      const { runRecords } = await collections()
      const documents = appended.map(({ run, record }) => {
        return { _id: `${run}/${record.n}`, run, n: record.n, body: JSON.stringify(record) }
      })
      const added = await insertNew(runRecords, documents)
      return documents.map(({ _id }) => added.has(_id))
    },

    async history(id) {
      const { runRecords } = await collections()
      const documents = await runRecords.find({ run: id }, { sort: { n: 1 } }).toArray()
      return documents.map(({ body }) => v.parse(RunRecord, JSON.parse(body)))
    },

    async due({ nowMs, kinds, exceptUsers, limit }) {
      if (kinds.length === 0) return []
      const { runs, pausedTypes } = await collections()
      const paused = new Set((await pausedTypes.find().toArray()).map(({ _id }) => _id))
      const user = { $nin: [...exceptUsers] }
      const ofKinds = unheldOf(kinds, { $lte: nowMs }).map((ofKind) => {
        return { ...ofKind, user, ...(paused.has(ofKind.type) && { 'head.epoch': { $gt: 0 } }) }
      })
      return toRuns(await runs.find({ $or: ofKinds }, { sort: { 'head.dueAtMs': 1, _id: 1 }, limit }).toArray())
    },

    async nextDueMs(nowMs, kinds) {
      if (kinds.length === 0) return undefined
      const { runs } = await collections()
      const next = await runs.findOne({ $or: unheldOf(kinds, { $gt: nowMs }) }, { sort: { 'head.dueAtMs': 1 } })
      return next?.head.dueAtMs
    },

    async take(run, holder) {
      const { runs } = await collections()
      const taken = { 'head.state': 'running', 'head.holder': holder, 'head.epoch': run.head.epoch + 1 } as const
      return toRun(await runs.findOneAndUpdate(asTaken(run), { $set: taken }, { returnDocument: 'after' }))
    },

    async put(held, head) {
      const { runs } = await collections()
      return (await runs.updateOne(asTaken(held), { $set: { head } })).matchedCount === 1
    },

    async holders() {
      const { runs, beats } = await collections()
      const held = await runs
        .find({ 'head.holder': { $gt: '' } }, { projection: { 'head.holder': 1 }, sort: { 'head.holder': 1 } })
        .toArray()
      const byHolder = Map.groupBy(held, ({ head }) => head.holder ?? '')
      const documents = await beats.find({ _id: { $in: [...byHolder.keys()] } }).toArray()
      const beatOf = new Map(documents.map(({ _id, beat }) => [_id, beat]))
      return Array.from(byHolder, ([holder, its]) => {
        return { holder, beat: beatOf.get(holder) ?? -1, runs: its.map(({ _id }) => _id) }
      })
    },

    async beat(holder, beat) {
      const { beats } = await collections()
      await beats.updateOne({ _id: holder }, { $set: { beat } }, { upsert: true })
    },

    async forget(holder) {
      const { beats } = await collections()
      await beats.deleteOne({ _id: holder })
    },

    async addInputs(inputs) {
      const { runInputs } = await collections()
      const documents = inputs.map((input) => {
        return { _id: inputId(input), run: input.run, atMs: input.atMs, noticed: false, body: JSON.stringify(input) }
      })
      await insertNew(runInputs, documents)
    },

    inputs: (runs) => toInputs((inputs) => inputs.find({ run: { $in: [...runs] } })),

    unnoticed(limit, after) {
      const follows = after && [{ atMs: { $gt: after.atMs } }, { atMs: after.atMs, _id: { $gt: inputId(after) } }]
      return toInputs((inputs) =>
        inputs.find({ noticed: false, ...(follows && { $or: follows }) }, { sort: { atMs: 1, _id: 1 }, limit }),
      )
    },

    async notice(inputs) {
      const { runInputs } = await collections()
      await runInputs.updateMany({ _id: { $in: inputs.map(inputId) } }, { $set: { noticed: true } })
    },

    async pause(type, paused) {
      const { pausedTypes } = await collections()
      if (paused) await insertNew(pausedTypes, [{ _id: type }])
      else await pausedTypes.deleteOne({ _id: type })
    },

    async paused() {
      const { pausedTypes } = await collections()
      return (await pausedTypes.find({}, { sort: { _id: 1 } }).toArray()).map(({ _id }) => _id)
    },

    async page({ user, type, state, createdBefore }, { limit, before }) {
      const { runs } = await collections()
      const filter = {
        ...(user !== undefined && { user }),
        ...(type !== undefined && { type }),
        ...(state !== undefined && { 'head.state': state }),
        ...(createdBefore !== undefined && { createdAt: { $lt: createdBefore } }),
        ...(before !== undefined && { _id: { $lt: before } }),
      }
      return toRuns(await runs.find(filter, { sort: { _id: -1 }, limit }).toArray())
    },

    async deleteBefore(createdAt, atMost) {
      const { runs, runRecords, runInputs } = await collections()
      const old = await runs
        .find(
          { 'head.state': 'ended', createdAt: { $lt: createdAt } },
          { projection: { _id: 1 }, sort: { createdAt: 1 }, limit: atMost },
        )
        .toArray()
      const ids = old.map(({ _id }) => _id)
      // The runs last, so that a crash in between leaves them to be deleted again, with what belongs to them.
      await runRecords.deleteMany({ run: { $in: ids } })
      await runInputs.deleteMany({ run: { $in: ids } })
      await runs.deleteMany({ _id: { $in: ids } })
      const orphans: string[] = []
      const cameBefore = { atMs: { $lt: Date.parse(createdAt) } }
      for await (const { _id, run } of runInputs.find(cameBefore, { sort: { atMs: 1 } })) {
        if (ids.length + orphans.length === atMost) break
        if ((await runs.countDocuments({ _id: run }, { limit: 1 })) === 0) orphans.push(_id)
      }
      await runInputs.deleteMany({ _id: { $in: orphans } })
      return ids.length + orphans.length
    },
  }
}

/** A condition for each kind, so that each is found by the index, in order. */
const unheldOf = <Due>(kinds: readonly Kind[], dueAtMs: Due) =>
  kinds.map(({ type, version }) => {
    return {
      type,
      version,
      'head.state': { $in: ['ready', 'waiting', 'stuck'] as RunState[] },
      'head.dueAtMs': dueAtMs,
    }
  })

const asTaken = ({ id, head }: Run) => ({
  _id: id,
  'head.epoch': head.epoch,
  'head.holder': head.holder ?? { $exists: false },
})

const inputId = ({ run, user, name }: RunInputKey) => `${run}/${user}/${name}`

function toDocument({ head, ...run }: Run): RunDocument {
  const { id, user, type, version, createdAt } = run
  return { _id: id, user, type, version, createdAt, head, body: JSON.stringify(run) }
}

function toRuns(documents: readonly RunDocument[]): Run[] {
  return documents.map(({ head, body }) => ({ ...v.parse(NewRun, JSON.parse(body)), head: v.parse(Head, head) }))
}

const toRun = (document: RunDocument | null): Run | undefined => toRuns(document ? [document] : [])[0]
