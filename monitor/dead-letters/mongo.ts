import { insertNew, toDocument, withId } from '@posta/common/storage/mongo-database.ts'
import type { Collection, Filter, IndexDescription } from 'mongodb'
import type {
  DeadLetterFilter,
  DeadLetterPosition,
  DeadLetterSummary,
  DeadLetters,
  Decision,
  StoredDeadLetter,
} from './dead-letters.ts'

export type DeadLetterDocument = Omit<StoredDeadLetter, 'id'> & { readonly _id: string }

/** `_id` is the dead letter's id: on any store with unique ids the first insert decides. */
export interface DecisionDocument {
  readonly _id: string
  readonly decision: Decision
  readonly confirmed: boolean
}

/** One for each filter, in the order of the lists; `_id` has its own. */
export const deadLetterIndexes: readonly IndexDescription[] = [
  ...[{}, { status: 1 }, { topic: 1 }, { group: 1 }, { type: 1 }, { user: 1 }, { operation: 1 }].map(
    (equal: IndexDescription['key']) => ({ key: { ...equal, receivedAtMs: -1, _id: -1 } }),
  ),
  { key: { 'decision.at': 1 } },
]
export const decisionIndexes: readonly IndexDescription[] = [{ key: { confirmed: 1, _id: 1 } }]

export interface DeadLetterCollections {
  readonly deadLetters: Collection<DeadLetterDocument>
  readonly decisions: Collection<DecisionDocument>
}

/**
 * Dead letters in one collection, the decisions about them in another: FerretDB does not update atomically under races, but
 * every server has unique ids. Besides inserts there is one update of a dead letter and one of a decision; each writes the
 * same whoever makes it, and however often.
 */
export function mongoDeadLetters(collections: () => Promise<DeadLetterCollections>): DeadLetters {
  async function find(ids: readonly string[]): Promise<ReadonlyMap<string, StoredDeadLetter>> {
    if (ids.length === 0) return new Map()
    const { deadLetters } = await collections()
    const found = await deadLetters.find(idIn(ids)).toArray()
    return new Map((await withDecisions(found.map(withId))).map((deadLetter) => [deadLetter.id, deadLetter]))
  }

  /** Adds the decisions that are not confirmed; a confirmed one is part of the dead letter. */
  async function withDecisions<Item extends DeadLetterSummary>(found: readonly Item[]): Promise<Item[]> {
    const open = found.filter(({ status }) => status === 'open').map(({ id }) => id)
    if (open.length === 0) return [...found]
    const { decisions } = await collections()
    const decided = await decisions.find(idIn(open)).toArray()
    const byId = new Map(decided.map(({ _id, decision }) => [_id, decision]))
    return found.map((item) => ({ ...item, decision: item.decision ?? byId.get(item.id) }))
  }

  async function page(filter: Filter<DeadLetterDocument>, direction: 1 | -1, limit: number) {
    const { deadLetters } = await collections()
    const found = await deadLetters
      .find(filter, { projection: { original: 0 }, sort: { receivedAtMs: direction, _id: direction }, limit })
      .toArray()
    return withDecisions(found.map(withId))
  }

  return {
    async add(added) {
      const { deadLetters } = await collections()
      await insertNew(deadLetters, added.map(toDocument))
    },

    get: async (id) => (await find([id])).get(id),

    find,

    list: (filter, { limit, before }) => page(matching(filter, '$lt', before), -1, limit),

    oldest: (filter, { limit, after }) => page(matching(filter, '$gt', after), 1, limit),

    async count(filter, { atMost, after }) {
      const { deadLetters } = await collections()
      return deadLetters.countDocuments(matching(filter, '$gt', after), { limit: atMost })
    },

    async decide(decided) {
      const { decisions } = await collections()
      return insertNew(
        decisions,
        decided.map(({ id, decision }) => ({ _id: id, decision, confirmed: false })),
      )
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
      await decisions.updateMany(idIn(decided.map(({ id }) => id)), { $set: { confirmed: true } })
    },

    async unconfirmed({ limit, afterId = '' }) {
      const { decisions } = await collections()
      const found = await decisions
        .find({ confirmed: false, _id: { $gt: afterId } }, { sort: { _id: 1 }, limit })
        .toArray()
      const deadLetters = await find(found.map(({ _id }) => _id))
      return found.flatMap(({ _id }) => deadLetters.get(_id) ?? [])
    },

    async prune(beforeMs, atMost) {
      const { deadLetters, decisions } = await collections()
      // Only a confirmed decision is part of the dead letter.
      const old = await deadLetters
        .find({ 'decision.at': { $lt: new Date(beforeMs).toISOString() } }, { projection: { _id: 1 }, limit: atMost })
        .toArray()
      const these = idIn(old.map(({ _id }) => _id))
      // First, so that a crash in between leaves no decision without its dead letter.
      await decisions.deleteMany(these)
      return (await deadLetters.deleteMany(these)).deletedCount
    },
  }
}

const idIn = (ids: readonly string[]) => ({ _id: { $in: [...ids] } })

function matching(
  { fromMs = 0, untilMs = Number.MAX_SAFE_INTEGER, ...equal }: DeadLetterFilter,
  beyond: '$lt' | '$gt',
  position: DeadLetterPosition | undefined,
): Filter<DeadLetterDocument> {
  return {
    ...Object.fromEntries(Object.entries(equal).filter(([, value]) => value !== undefined)),
    receivedAtMs: { $gte: fromMs, $lt: untilMs },
    ...(position && {
      $and: [
        // The next condition implies this one, which gives the index its range.
        { receivedAtMs: { [`${beyond}e`]: position.receivedAtMs } },
        { $or: [{ receivedAtMs: { [beyond]: position.receivedAtMs } }, { _id: { [beyond]: position.id } }] },
      ],
    }),
  }
}
