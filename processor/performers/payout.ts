import type { Catalog } from '@posta/common/operations/catalog.ts'
import { type ExternalHttp, failureText } from '@posta/common/service/external-http.ts'
import * as v from 'valibot'
import { isAbove, orderAtRate } from './order.ts'
import { type Attempt, later, type Performer } from './performer.ts'

/** What `decide` says to the run. `amount` is what is paid, in `to`. */
const Decided = v.object({ amount: v.string(), rate: v.string(), needsApproval: v.boolean() })

/** The pause before a payment that is pending is looked at again; it doubles each time. */
const FIRST_LOOK_MS = 500
const LONGEST_LOOK_MS = 60_000

/**
 * Pays an amount out at a provider: reserves it, waits for an operator's approval where that is needed, pays, and waits until
 * the payment is settled.
 *
 * The amount is reserved before an operator is asked, so that nobody is asked for what cannot be paid: the provider refuses
 * a payee here, and an approved payout has its money. Until the payment begins the reservation can be released.
 */
export const payout: Performer<Catalog['payout']> = {
  decide(asked) {
    const placed = orderAtRate('payout', asked)
    if ('failure' in placed) return placed
    const { amount, rate, counts } = placed.order
    return { goOn: { amount, rate, needsApproval: isAbove(counts, asked.settings.APPROVAL_ABOVE_USD) }, counts }
  },

  async run({ step, signal, input, facts, decided, settings, http }) {
    const { amount, rate, needsApproval } = v.parse(Decided, decided)
    const { to: currency, payee } = input
    const provider = providerAt(settings.PAYOUT_URL, http)

    const reserved = await step('reserve', (attempt) => provider.reserve({ amount, currency, payee }, attempt), {
      undo: async (given, attempt) => {
        if ('id' in given) await provider.release(given.id, attempt)
      },
    })
    if (!('id' in reserved)) return refused('The provider does not pay to this payee.')

    if (needsApproval && !(await signal('approve'))?.approved)
      return { failure: { code: 'not-approved', message: 'An operator did not approve the payout. Nothing was paid.' } }

    const payment = await step('pay', (attempt) => provider.pay(reserved.id, attempt), { final: true })
    const settled = await step('settled', async (attempt) => {
      const { status } = await provider.payment(payment.id, attempt)
      return status === 'pending'
        ? later(Math.min(FIRST_LOOK_MS * 2 ** (attempt.attempt - 1), LONGEST_LOOK_MS))
        : status
    })
    if (settled === 'refused') return refused('The payment to this payee was refused. Nothing was paid.')
    const { date, source } = facts
    return { output: { amount, currency, rate, date, source, reference: payment.id } }
  },
}

function refused(message: string) {
  return { failure: { code: 'payee-refused', message } } as const
}

const Id = v.pipe(v.string(), v.minLength(1), v.maxLength(255))
const Reserved = v.object({ id: Id })
const Refusal = v.object({ code: v.literal('payee-refused') })
const Payment = v.object({ id: Id, status: v.picklist(['pending', 'settled', 'refused']) })

/** The provider's API. Its calls throw for whatever is no answer to them, and may be made again with the same attempt's key. */
function providerAt(url: string | undefined, http: ExternalHttp) {
  async function call(
    method: 'get' | 'post' | 'delete',
    path: string,
    { idempotencyKey, signal }: Attempt,
    body?: Readonly<Record<string, string>>,
  ): Promise<unknown> {
    if (url === undefined)
      throw new Error('PAYOUT_URL is not set. Set it to the URL of the payout provider and start processor again.')
    const failed = (why: string, cause?: unknown) =>
      new Error(`The payout provider did not do ${method.toUpperCase()} ${path}: ${why}.`, { cause })
    let status: number
    let answer: unknown
    try {
      const response = await http(`${url}${path}`, {
        method,
        signal,
        // A step's policy says when it is tried again. These end before its 30 s, so that the error names the call.
        retry: 0,
        timeout: 20_000,
        totalTimeout: 25_000,
        throwHttpErrors: (refused) => refused !== 422,
        ...(body && { json: body, headers: { 'Idempotency-Key': idempotencyKey } }),
      })
      status = response.status
      answer = status === 204 ? undefined : await response.json()
    } catch (error) {
      throw failed(failureText(error), error)
    }
    if (status === 422 && !v.is(Refusal, answer)) throw failed('status 422')
    return answer
  }

  return {
    /** A refused payee is an answer, which is recorded like any other. */
    reserve: async (order: { amount: string; currency: string; payee: string }, attempt: Attempt) =>
      read(v.union([Reserved, Refusal]), await call('post', '/reservations', attempt, order)),
    release: (id: string, attempt: Attempt) => call('delete', `/reservations/${encodeURIComponent(id)}`, attempt),
    pay: async (reservation: string, attempt: Attempt) =>
      read(Payment, await call('post', '/payments', attempt, { reservation })),
    payment: async (id: string, attempt: Attempt) =>
      read(Payment, await call('get', `/payments/${encodeURIComponent(id)}`, attempt)),
  }
}

function read<Schema extends v.GenericSchema>(schema: Schema, answer: unknown): v.InferOutput<Schema> {
  const checked = v.safeParse(schema, answer)
  if (checked.success) return checked.output
  throw new Error(`The answer of the payout provider cannot be used: ${checked.issues[0].message}.`)
}
