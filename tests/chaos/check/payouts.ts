import type { OperationRow, ResultRow } from '../snapshot.ts'
import type { Facts } from './facts.ts'
import { amountOf, worthUsdE8 } from './money.ts'
import { type Violation, violation } from './violation.ts'

type Reservation = Facts['ledger']['reservations'][number]
type Payment = Facts['ledger']['payments'][number]

/** The provider paid what succeeded, once each, and nothing else, and holds no money for what has ended. */
export function* checkPayouts(facts: Facts): Generator<Violation> {
  const { reservations, payments } = facts.ledger
  const reservationsOf = Map.groupBy(reservations, ({ key }) => operationOf(key))
  const paymentsOf = Map.groupBy(payments, ({ key }) => operationOf(key))
  for (const [id, found] of [...reservationsOf, ...paymentsOf]) yield* checkOnce(facts, id, found)
  for (const operation of facts.operations) {
    if (operation.type !== 'payout') continue
    const { id } = operation
    const result = facts.resultOf.get(id)
    const [paid = [], reserved = []] = [paymentsOf.get(id), reservationsOf.get(id)]
    for (const { state } of reserved)
      if (state === 'open') yield violation('left reserved', id, `as ${operation.status}`)
    yield* checkReservations(operation, result, reserved)
    yield* checkPayments(facts, operation, result, paid)
    yield* checkReason(facts, operation, result)
  }
}

/** A key is `<operation>/<step>`. */
export function operationOf(key: string): string {
  return key.split('/')[0] ?? ''
}

function* checkOnce(facts: Facts, id: string, found: readonly { readonly key: string }[]): Generator<Violation> {
  if (facts.operationOf.get(id)?.type !== 'payout') yield violation('paid wrongly', id, 'there is no such payout')
  if (found.length > 1) yield violation('paid twice', id, found.map(({ key }) => key).join(', '))
}

function* checkReservations(
  { id, input }: OperationRow,
  result: ResultRow | undefined,
  reserved: readonly Reservation[],
): Generator<Violation> {
  for (const { amount, currency, payee } of reserved) {
    const expected = result?.facts ? amountOf(result) : undefined
    if (payee !== input.payee || (expected && (amount !== expected.amount || currency !== expected.currency)))
      yield violation(
        'paid wrongly',
        id,
        `${amount} ${currency} to ${payee}, not ${expected?.amount} to ${input.payee}`,
      )
  }
}

function* checkPayments(
  facts: Facts,
  { id, status }: OperationRow,
  result: ResultRow | undefined,
  paid: readonly Payment[],
): Generator<Violation> {
  const settled = paid.filter((payment) => payment.status === 'settled')
  if (status === 'succeeded') {
    if (settled.length === 0 || settled[0]?.id !== result?.output?.reference)
      yield violation('not paid', id, `reference ${result?.output?.reference}, settled ${settled[0]?.id}`)
  } else if (paid.some((payment) => payment.status !== 'refused')) yield violation('paid wrongly', id, `it ${status}`)
  if (paid.length === 0 || !result?.facts || worthUsdE8(result) <= BigInt(facts.approvalAboveUsdE8)) return
  if (!isAnswered(facts, id, true)) yield violation('paid without approval', id, `${worthUsdE8(result)} e-8 USD`)
}

/** Whether an operator gave this answer. */
function isAnswered(facts: Facts, id: string, approved: boolean): boolean {
  const tells = facts.tellsOf.get(id) ?? []
  return tells.some((each) => each.what === 'approve' && each.approved === approved && facts.operators.has(each.user))
}

/** Whether what clients and operators did, and whom they wanted to pay, explains how the payout ended. */
function* checkReason(
  facts: Facts,
  { id, status, errorCode, input: { payee = '' } }: OperationRow,
  result: ResultRow | undefined,
): Generator<Violation> {
  const isRefused = /^(?:refused|bounced)/.test(payee)
  const wrong = (detail: string) => violation('wrong outcome', id, `${errorCode ?? status}: ${detail}`)
  if (status === 'succeeded' && isRefused) yield wrong(payee)
  if (status !== 'failed') return
  // What a redrive began fails as the dead letter did. Whatever else is dead-lettered was discarded, if it has a run.
  const isDiscarded = facts.history.some((entry) => entry.kind === 'discard' && entry.id === id)
  const run = facts.runOf.get(id)
  const explained: Readonly<Record<string, boolean>> = {
    'limit-exceeded': run === undefined && result !== undefined,
    'payee-refused': isRefused,
    'not-approved': isAnswered(facts, id, false),
    cancelled: facts.tellsOf.get(id)?.some(({ what }) => what === 'cancel') ?? false,
    'dead-lettered': run ? isDiscarded || Boolean(run.redrive) : facts.misread.includes(id),
  }
  if (!explained[errorCode ?? '']) yield wrong('nothing that anyone did explains it')
}
