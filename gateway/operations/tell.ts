// Cancels and answers for operations under way: they follow the request through the outbox, in the owner's order.
import type { MessageData } from '@posta/common/messages/events.ts'
import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract, Signal } from '@posta/common/operations/contract.ts'
import type { Caller } from '@posta/common/service/auth.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, exists, or, sql } from 'drizzle-orm'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { isPending, operations } from '../database/schema.ts'
import { type Operation, type OperationRow, toOperation } from './operation.ts'
import { RESEND_AFTER_MS } from './resend.ts'

export type InputKind = 'cancel' | 'signal'

export interface Tell {
  /**
   * Asks an operation to cancel: its owner may, and operators. Resolves to the operation, as it was when it was asked, once
   * that is stored. Whether it is obeyed is the operation's affair. Asked again while it may go on: the same, and nothing more
   * is sent. One in steps that failed as `dead-lettered` has not ended for this: a redrive may let it go on.
   * @throws Problem `not-found`, `already-terminal`, `overloaded`
   */
  cancel(asked: { readonly caller: Caller; readonly id: string }): Promise<Operation>
  /**
   * Gives an operation one of the answers that its contract has signals for. Resolves to the operation, as it was when it was
   * asked, once that is stored. As for `cancel`, one in steps that failed as `dead-lettered` has not ended.
   * @param asked.base the pointer to `payload` in what the caller sent
   * @throws Problem `not-found`, `unknown-signal`, `forbidden`, `invalid-input`, `already-terminal`, `already-given`,
   * `payload-too-large`, `overloaded`
   */
  signal(asked: {
    readonly caller: Caller
    readonly id: string
    readonly name: string
    readonly payload: unknown
    readonly base: string
  }): Promise<Operation>
}

/** What is stored and sent: of each operation, one of a name. */
interface Told<Type extends InputType> {
  /** `cancel`, or `signal.` and the name of a signal. The id of the event is the operation's and this. */
  readonly name: string
  readonly type: Type
  readonly data: MessageData<Type>
}

type InputType = 'posta.operation.cancel-requested' | 'posta.operation.signalled'

/**
 * @param options.contracts the catalog by default
 * @param options.onTold is called once a cancel or an answer is stored; not for one that was stored before.
 */
export function createTell(options: {
  database: Database
  writer: Writer
  addEvent: AddEvent
  onTold: (kind: InputKind) => void
  deps: Pick<Deps, 'now'>
  contracts?: Readonly<Record<OperationType, Contract>>
}): Tell {
  const { database, writer, addEvent, onTold, deps, contracts = catalog } = options

  /** @throws Problem `not-found`, also for another's operation, unless the caller is an operator */
  async function findFor({ user, role }: Caller, id: string): Promise<OperationRow> {
    const [row] = await database.select().from(operations).where(eq(operations.id, id)).limit(1)
    if (row && (row.userId === user || role === 'operator')) return row
    throw new Problem('not-found', 'You have no operation with this id.')
  }

  /** False if it was stored before. All gateways together store and send it once, since each does so in one transaction. */
  async function store<Type extends InputType>(id: string, { name, type, data }: Told<Type>): Promise<boolean> {
    const path = `$."${name}"`
    const { steps }: Contract = contracts[data.operationType]
    // A redriven operation in steps goes on, though it has failed by dead letter.
    const goesOn = steps ? or(isPending, eq(operations.errorCode, 'dead-lettered')) : isPending
    const isNew = and(eq(operations.id, id), goesOn, sql`json_extract(${operations.inputs}, ${path}) IS NULL`)
    const [sent, , found] = await writer.write([
      addEvent(type, data, exists(database.select({ new: sql`1` }).from(operations).where(isNew)), {
        id: `${id}.${name}`,
        subject: id,
      }),
      database
        .update(operations)
        .set({
          inputs: sql`json_set(coalesce(${operations.inputs}, '{}'), ${path}, ${deps.now()})`,
          // It may have waited for this, with its next resend after the end of the wait.
          resendAt: sql`min(${operations.resendAt}, ${deps.now() + RESEND_AFTER_MS})`,
        })
        .where(isNew),
      database
        .select({ id: operations.id })
        .from(operations)
        .where(and(eq(operations.id, id), goesOn)),
    ])
    if (sent?.rowsAffected === 1) return true
    if (found?.rows.length === 1) return false
    throw new Problem('already-terminal', 'The operation has ended.')
  }

  return {
    async cancel({ caller, id }) {
      const row = await findFor(caller, id)
      const data = { user: row.userId, operation: id, operationType: row.type, by: caller.user }
      if (await store(id, { name: 'cancel', type: 'posta.operation.cancel-requested', data })) onTold('cancel')
      return toOperation(row)
    },
    async signal({ caller, id, name, payload: given, base }) {
      const row = await findFor(caller, id)
      const { signals = {} }: Contract = contracts[row.type]
      const signal = Object.hasOwn(signals, name) ? signals[name] : undefined
      if (!signal) throw new Problem('unknown-signal', `${row.type} waits for no answer of this name.`)
      refuseOthers(signal, caller, row)
      const payload = checkInput(signal.payload, given, base)
      const data = { user: row.userId, operation: id, operationType: row.type, by: caller.user, signal: name, payload }
      if (!(await store(id, { name: `signal.${name}`, type: 'posta.operation.signalled', data })))
        throw new Problem('already-given', 'The operation was given this answer before.')
      onTold('signal')
      return toOperation(row)
    },
  }
}

/** @throws Problem `forbidden` unless the caller may give this answer. Nobody approves their own. */
function refuseOthers({ from }: Signal, caller: Caller, { userId }: OperationRow): void {
  const isOwner = caller.user === userId
  if (from === 'owner' && !isOwner) throw new Problem('forbidden', 'The owner of the operation gives this answer.')
  if (from === 'operator' && (isOwner || caller.role !== 'operator'))
    throw new Problem('forbidden', 'An operator who is not the owner of the operation gives this answer.')
}
