import type { Group, Topic } from '../../messages/topics.ts'
import type { Clock } from '../../service/clock.ts'
import type { Logger } from '../../service/log.ts'
import { createSilence } from '../../service/silence.ts'
import type { EmbeddedFile } from './file.ts'

/** How often a member that stands by looks whether the holder is dead. */
export const LOOK_MS = 200

/**
 * The lease on a group's topic, in one row with its committed offset. The holder raises the row's beat every second. Taking
 * the lease raises its epoch, a fencing token: the writes of an earlier holder change nothing.
 */
export interface Lease {
  /** Takes it if it is free or its holder is silent. Undefined if it is neither, or another member was faster. */
  take(): Promise<{ readonly epoch: number; readonly committed: number } | undefined>
  isHeld(epoch: number): boolean
  /** Called within a write. Raises the beat and commits the offset. False if the lease is lost. */
  renew(epoch: number, committed: number): boolean
  /** Called within a write. Commits the offset and sets the lease free. */
  release(epoch: number, committed: number): void
}

export function openLease(options: {
  file: EmbeddedFile
  group: Group
  topic: Topic
  deps: Clock
  log: Logger
}): Lease {
  const { file, group, topic, deps, log } = options
  const owner = Bun.randomUUIDv7()
  const isSilent = createSilence({ monotonicMs: deps.monotonicMs, lookMs: LOOK_MS })
  const select = file.db.prepare<{ owner: string | null; epoch: number; beat: number }, [Group, Topic]>(
    'SELECT owner, epoch, beat FROM consumer WHERE "group" = ? AND topic = ?',
  )
  const take = file.db.prepare<{ epoch: number; committed: number }, [string, Group, Topic, number, number]>(
    `UPDATE consumer SET owner = ?, epoch = epoch + 1, beat = beat + 1
     WHERE "group" = ? AND topic = ? AND epoch = ? AND (owner IS NULL OR beat = ?)
     RETURNING epoch, next AS committed`,
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
      if (taken && row.owner !== null) log.warn('took over from a member that fell silent')
      return taken ?? undefined
    },
    isHeld: (epoch) => select.get(group, topic)?.epoch === epoch,
    renew: (epoch, committed) => renew.run(committed, group, topic, epoch).changes > 0,
    release(epoch, committed) {
      release.run(committed, group, topic, epoch)
      file.changed(topic)
    },
  }
}
