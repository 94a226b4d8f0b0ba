import type { Batch, BatchHandler } from '../broker/broker.ts'
import type { Dead, SetAside } from './dead-letters.ts'
import type { ConsumeOptions, Received, Verdict } from './handler.ts'
import { countByTopic } from './metrics.ts'
import type { Outages } from './outages.ts'
import { createRetries, type Retries } from './retry.ts'

/** What is known of a partition while it is assigned. After its loss everything that is not committed is delivered again. */
interface Assignment<Item> {
  readonly retries: Retries<Item>
  /** Every message before this offset is done, dead or held. */
  handledTo: number
}

const NO_VERDICT: Verdict = { retry: 'The handler gave no verdict.' }

/** Reads the messages of a batch, handles those whose key is not held, and carries out the verdicts. */
export function createDispatch<Item>(
  options: ConsumeOptions<Item> & { readonly firstPauseMs: number },
  { waitOut }: Outages,
  setAside: SetAside<Item>,
): BatchHandler {
  /** By the signal that aborts when the partition is lost. */
  const assignments = new WeakMap<AbortSignal, Assignment<Item>>()
  const countRetry = countByTopic(options, 'posta_message_retries_total', 'Attempts at a message after the first.')

  function assign({ messages, signal, commit }: Batch): Assignment<Item> {
    const retries: Retries<Item> = createRetries({
      ...options,
      signal,
      async handle(received) {
        const [verdict = NO_VERDICT] = await waitOut(() => options.handle([received], signal), signal)
        return verdict
      },
      setAside: (received, reason) => setAside([{ message: received.message, reason, received }], signal),
      onRetry: (message) => countRetry(message.topic),
      // Not past `handledTo`: the messages after it may still be in work.
      onReleased: () => commit(Math.min(assignment.handledTo, retries.oldest())),
    })
    const assignment: Assignment<Item> = { retries, handledTo: messages[0]?.offset ?? 0 }
    assignments.set(signal, assignment)
    return assignment
  }

  return async (batch) => {
    const { signal } = batch
    const assignment = assignments.get(signal) ?? assign(batch)
    const { retries } = assignment
    const free: Received<Item>[] = []
    const dead: Dead<Item>[] = []
    for (const message of batch.messages) {
      const read = options.read(message)
      if ('unreadable' in read) dead.push({ message, reason: read.unreadable })
      else if (!retries.enqueue({ message, item: read.item })) free.push({ message, item: read.item })
    }
    const verdicts = free.length > 0 ? await waitOut(() => options.handle(free, signal), signal) : []
    const retry: (() => void)[] = []
    for (const [index, received] of free.entries()) {
      const verdict = verdicts[index] ?? NO_VERDICT
      if (retries.enqueue(received)) continue
      if ('retry' in verdict) retry.push(retries.hold(received, verdict.retry))
      if ('dead' in verdict) dead.push({ message: received.message, reason: verdict.dead, received })
    }
    await setAside(dead, signal)
    // Not before: what waits behind a dead message of its key is handled once that one is set aside.
    for (const begin of retry) begin()
    await retries.room()

    assignment.handledTo = (batch.messages.at(-1)?.offset ?? 0) + 1
    const heldFrom = retries.oldest()
    return heldFrom < assignment.handledTo ? { heldFrom } : undefined
  }
}
