import type { Group, Topic } from '../../messages/topics.ts'
import type { Clock } from '../../service/clock.ts'
import { createSilence } from '../../service/silence.ts'
import type { EmbeddedFile } from './file.ts'

/** How often a member that stands by looks whether the holder is dead. */
export const LOOK_MS = 200

interface Row {
  /** The committed offset. */
  readonly next: number
  readonly owner: string | null
  readonly epoch: number
  readonly beat: number
}

/** What was taken: the epoch is the fencing token of every write, and the committed offset is where to go on. */
export type Taken = Pick<Row, 'epoch' | 'next'> & { readonly fromSilent: boolean }

/**
 * The lease on a group's topic, in the row of its committed offset. The holder raises the row's beat every second. Whoever
 * takes the lease raises its epoch, so that a write of an earlier holder changes nothing.
 */
export interface Lease {
  /** Takes it if it is free or its holder is silent. Undefined if not, or if another member was faster. */
  take(): Promise<Taken | undefined>
  isHeld(epoch: number): boolean
  /** Within a write: raises the beat and commits the offset. False if the lease is lost. */
  renew(epoch: number, committed: number): boolean
  /** Within a write: commits the offset and leaves the lease to whoever takes it first. */
  release(epoch: number, committed: number): void
}

export function openLease(file: EmbeddedFile, group: Group, topic: Topic, { monotonicMs }: Clock): Lease {
  const owner = Bun.randomUUIDv7()
  const isSilent = createSilence({ monotonicMs, lookMs: LOOK_MS })
  const select = file.db.prepare<Row, [Group, Topic]>(
    'SELECT next, owner, epoch, beat FROM consumer WHERE "group" = ? AND topic = ?',
  )
  const take = file.db.prepare<Pick<Row, 'epoch' | 'next'>, [string, Group, Topic, number, number]>(
    `UPDATE consumer SET owner = ?, epoch = epoch + 1, beat = beat + 1
     WHERE "group" = ? AND topic = ? AND epoch = ? AND (owner IS NULL OR beat = ?) RETURNING epoch, next`,
  )
  const renew = file.db.prepare<null, [number, Group, Topic, number]>(
    'UPDATE consumer SET beat = beat + 1, next = max(next, ?) WHERE "group" = ? AND topic = ? AND epoch = ?',
  )
  const release = file.db.prepare<null, [number, Group, Topic, number]>(
    `UPDATE consumer SET owner = NULL, epoch = epoch + 1, next = max(next, ?)
     WHERE "group" = ? AND topic = ? AND epoch = ?`,
  )

  return {
    async take() {
      const row = select.get(group, topic)
      if (!row || (row.owner !== null && !isSilent(`${row.epoch} ${row.beat}`))) return undefined
      const taken = await file.write(() => take.get(owner, group, topic, row.epoch, row.beat))
      return taken ? { ...taken, fromSilent: row.owner !== null } : undefined
    },
    isHeld: (epoch) => select.get(group, topic)?.epoch === epoch,
    renew: (epoch, committed) => renew.run(committed, group, topic, epoch).changes > 0,
    release(epoch, committed) {
      release.run(committed, group, topic, epoch)
      file.changed(topic)
    },
  }
}
