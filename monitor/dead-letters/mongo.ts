import { DUPLICATE_KEY, toDocument, withId } from '@posta/common/storage/mongo-database.ts'
import { type Collection, type Filter, type IndexDescription, MongoBulkWriteError } from 'mongodb'
import type {
  DeadLetterFilter,
  DeadLetterPosition,
  DeadLetterSummary,
  DeadLetters,
  Decision,
  StoredDeadLetter,
} from './dead-letters.ts'

type Document<Item extends { readonly id: string }> = Omit<Item, 'id'> & { readonly _id: string }
export type DeadLetterDocument = Document<StoredDeadLetter>

/** `_id` is the dead letter's: whose insert is first has decided, on any store that has unique ids. */
export interface DecisionDocument {
  readonly _id: string
  readonly decision: Decision
  readonly confirmed: boolean
}

/** One for each filter, in the order of the lists; `_id` has its own. */
export const deadLetterIndexes: readonly IndexDescription[] = [
  { key: { receivedAtMs: -1, _id: -1 } },
  { key: { status: 1, receivedAtMs: -1, _id: -1 } },
  { key: { topic: 1, receivedAtMs: -1, _id: -1 } },
  { key: { group: 1, receivedAtMs: -1, _id: -1 } },
  { key: { type: 1, receivedAtMs: -1, _id: -1 } },
  { key: { user: 1, receivedAtMs: -1, _id: -1 } },
  { key: { operation: 1, receivedAtMs: -1, _id: -1 } },
  { key: { 'decision.at': 1 } },
]
export const decisionIndexes: readonly IndexDescription[] = [{ key: { confirmed: 1, _id: 1 } }]

export interface DeadLetterCollections {
  readonly deadLetters: Collection<DeadLetterDocument>
  readonly decisions: Collection<DecisionDocument>
}

/**
 * Dead letters in a collection, the decisions in another: not every server that speaks MongoDB's protocol updates
 * atomically under races (FerretDB does not), but all have unique ids. Besides inserts there is one update of a dead
 * letter, and one of a decision, which says the same whoever makes it and however often.
 */
export function mongoDeadLetters(collections: () => Promise<DeadLetterCollections>): DeadLetters {
  async function find(ids: readonly string[]): Promise<ReadonlyMap<string, StoredDeadLetter>> {
    if (ids.length === 0) return new Map()
    const { deadLetters } = await collections()
    const found = await deadLetters.find({ _id: { $in: [...ids] } }).toArray()
    return new Map((await decided(found.map(withId))).map((deadLetter) => [deadLetter.id, deadLetter]))
  }

  /** With the decisions that are not confirmed; a confirmed one stands in the dead letter itself. */
  async function decided<Item extends DeadLetterSummary>(found: readonly Item[]): Promise<Item[]> {
    const open = found.filter(({ status }) => status === 'open').map(({ id }) => id)
    if (open.length === 0) return [...found]
    const { decisions } = await collections()
    const documents = await decisions.find({ _id: { $in: open } }).toArray()
    const byId = new Map(documents.map(({ _id, decision }) => [_id, decision]))
    return found.map((item) => ({ ...item, decision: item.decision ?? byId.get(item.id) }))
  }

  async function page(filter: Filter<DeadLetterDocument>, direction: 1 | -1, limit: number) {
    const { deadLetters } = await collections()
    const found = await deadLetters
      .find(filter, { projection: { original: 0 } })
      .sort({ receivedAtMs: direction, _id: direction })
      .limit(limit)
      .toArray()
    return decided(found.map(withId))
  }

  return {
    async add(letters) {
      const { deadLetters } = await collections()
      await insertNew(letters, () => deadLetters.insertMany(letters.map(toDocument), { ordered: false }))
    },

    get: async (id) => (await find([id])).get(id),

    find,

    list: (filter, { limit, before }) => page(matching(filter, before && { direction: '$lt', ...before }), -1, limit),

    oldest: (filter, { limit, after }) => page(matching(filter, after && { direction: '$gt', ...after }), 1, limit),

    async count(filter, { atMost, after }) {
      const { deadLetters } = await collections()
      return deadLetters.countDocuments(matching(filter, after && { direction: '$gt', ...after }), { limit: atMost })
    },

    async decide(decided) {
      const { decisions } = await collections()
      const documents = decided.map(({ id, decision }) => ({ _id: id, decision, confirmed: false }))
      return insertNew(decided, () => decisions.insertMany(documents, { ordered: false }))
    },

    async confirm(decided) {
      if (decided.length === 0) return
      const { deadLetters, decisions } = await collections()
      await deadLetters.bulkWrite(
        decided.map(({ id, decision }) => ({
          updateOne: { filter: { _id: id, status: 'open' }, update: { $set: { status: decision.to, decision } } },
        })),
        { ordered: false },
      )
      // Last, so that a crash in between leaves it to be confirmed again.
      await decisions.updateMany({ _id: { $in: decided.map(({ id }) => id) } }, { $set: { confirmed: true } })
    },

    async unconfirmed({ limit, afterId = '' }) {
      const { decisions } = await collections()
      const found = await decisions
        .find({ confirmed: false, _id: { $gt: afterId } })
        .sort({ _id: 1 })
        .limit(limit)
        .toArray()
      const letters = await find(found.map(({ _id }) => _id))
      return found.flatMap(({ _id }) => letters.get(_id) ?? [])
    },

    async prune(beforeMs, atMost) {
      const { deadLetters, decisions } = await collections()
      // Only a confirmed decision stands in the dead letter.
      const old = await deadLetters
        .find({ 'decision.at': { $lt: new Date(beforeMs).toISOString() } }, { projection: { _id: 1 } })
        .limit(atMost)
        .toArray()
      if (old.length === 0) return 0
      const these = { _id: { $in: old.map(({ _id }) => _id) } }
      // First, so that a crash in between leaves none without its dead letter.
      await decisions.deleteMany(these)
      return (await deadLetters.deleteMany(these)).deletedCount
    },
  }
}

/** Which of the items an unordered insert of them stored: those whose ids were new. */
async function insertNew(
  items: readonly { readonly id: string }[],
  insert: () => Promise<unknown>,
): Promise<ReadonlySet<string>> {
  const ids = items.map(({ id }) => id)
  if (ids.length === 0) return new Set()
  try {
    await insert()
    return new Set(ids)
  } catch (error) {
    if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError()) throw error
    const refused = error.result.getWriteErrors()
    // A connection that broke is such an error, too: then nothing was refused, and nobody knows what was stored.
    if (refused.length === 0 || !refused.every(({ code }) => code === DUPLICATE_KEY)) throw error
    const known = new Set(refused.map(({ index }) => index))
    return new Set(ids.filter((_, index) => !known.has(index)))
  }
}

function matching(
  { fromMs, untilMs, ...equal }: DeadLetterFilter,
  place: (DeadLetterPosition & { readonly direction: '$lt' | '$gt' }) | undefined,
): Filter<DeadLetterDocument> {
  const bounds = [
    fromMs !== undefined && { receivedAtMs: { $gte: fromMs } },
    untilMs !== undefined && { receivedAtMs: { $lt: untilMs } },
    // The first says nothing new; it gives the index its range.
    place && { receivedAtMs: { [`${place.direction}e`]: place.receivedAtMs } },
    place && {
      $or: [{ receivedAtMs: { [place.direction]: place.receivedAtMs } }, { _id: { [place.direction]: place.id } }],
    },
  ].filter((bound) => bound !== undefined && bound !== false)
  return {
    ...Object.fromEntries(Object.entries(equal).filter(([, value]) => value !== undefined)),
    ...(bounds.length > 0 && { $and: bounds }),
  }
}
