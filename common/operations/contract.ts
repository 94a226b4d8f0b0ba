import type * as v from 'valibot'
import type { ProblemCode } from '../service/problem.ts'
import type { RateTable } from './rates.ts'

/** `v.strictObject` refuses unknown members: for what clients send. `v.object` ignores them: for messages. */
type ObjectSchema = v.GenericSchema<unknown, Record<string, unknown>>

/**
 * Describes an operation to all services: gateway validates `input` and fetches `rates`, and both APIs and all documents
 * follow from it. What the operation does is its performer, `processor/performers/<type>.ts`.
 * @example
 * const contract = {
 *   type: 'double',
 *   summary: 'Double an amount',
 *   description: 'Answers with twice the amount.',
 *   input: v.strictObject({ amount: PositiveDecimal, currency: CurrencyCode }),
 *   output: v.object({ amount: v.string() }),
 *   failures: [],
 *   rates: { base: 'currency', quotes: [], also: ['USD'] },
 * } as const satisfies Contract
 */
export interface Contract {
  /** `type` in `POST /operations`. In camel case: the GraphQL mutation and the field of `Operation`. */
  readonly type: string
  readonly summary: string
  readonly description: string
  readonly input: ObjectSchema
  readonly output: ObjectSchema
  /** The codes that its performer may fail with. */
  readonly failures: readonly ProblemCode[]
  /**
   * What gateway fetches before it accepts the operation: rates of the currency in the input's member `base`, either all of
   * them or those for the currencies in the members `quotes` and for the codes in `also`. An unknown currency is a 422 with
   * a pointer to its member.
   */
  readonly rates: {
    readonly base: string
    readonly quotes: readonly string[] | 'all'
    readonly also?: readonly string[]
  }
}

export type InputOf<C extends Contract> = v.InferOutput<C['input']>
export type OutputOf<C extends Contract> = v.InferOutput<C['output']>

/** All that a performer may use. */
export interface Facts<C extends Contract> {
  readonly input: InputOf<C>
  readonly rates: RateTable
  /** What counts already against the user's limit of the UTC day of `createdAt`, in 1e-8 USD. */
  readonly countedUsdE8: number
  /** In 1e-8 USD. */
  readonly dailyLimitUsdE8: number
}

/** `countsUsdE8`: what a success counts against the limit, in 1e-8 USD. */
export type Outcome<C extends Contract> =
  | { readonly output: OutputOf<C>; readonly countsUsdE8?: number }
  | { readonly failure: { readonly code: C['failures'][number]; readonly message: string } }

/**
 * What an operation does. It must be pure: the same facts give the same outcome, on every machine and at any time.
 * @throws Error if the facts do not suffice. The request is tried again, and dead-lettered in the end.
 * @example
 * const double: Performer<typeof contract> = ({ input }) => ({
 *   output: { amount: new Big(input.amount).times(2).toFixed() },
 * })
 */
export type Performer<C extends Contract> = (facts: Facts<C>) => Outcome<C>
