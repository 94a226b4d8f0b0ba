import type * as v from 'valibot'
import type { ProblemCode } from '../service/problem.ts'
import type { RateTable } from './rates.ts'

/** Objects of the wire: `strictObject` refuses unknown members (what clients send), `object` ignores them. */
type ObjectSchema = v.GenericSchema<unknown, Record<string, unknown>>

/**
 * What an operation is, for everyone: gateway checks `input` and fetches `rates`, processor performs it, both APIs and
 * the docs follow from it. Its effect is in `processor/performers/<type>.ts`.
 */
export interface Contract {
  /** As in `POST /operations {type}`; its camel case is the GraphQL mutation and the field of `Operation`. */
  readonly type: string
  readonly summary: string
  readonly description: string
  readonly input: ObjectSchema
  readonly output: ObjectSchema
  /** The failures that a performer may answer with. */
  readonly failures: readonly ProblemCode[]
  /**
   * What gateway fetches before it accepts the operation: the rates of the currency in the input member `base`, either
   * the whole table or those of the members `quotes` and of the codes in `also`. An unknown code is a 422 at that member.
   */
  readonly rates: {
    readonly base: string
    readonly quotes: readonly string[] | 'all'
    readonly also?: readonly string[]
  }
}

export type InputOf<C extends Contract> = v.InferOutput<C['input']>
export type OutputOf<C extends Contract> = v.InferOutput<C['output']>

/** Everything a performer may look at. It is pure: the same facts give the same outcome, on whichever machine. */
export interface Facts<C extends Contract> {
  readonly input: InputOf<C>
  readonly rates: RateTable
  /** What counted against the user's limit on the UTC day of `createdAt` before this operation, in 1e-8 USD. */
  readonly countedUsdE8: number
  /** In 1e-8 USD. */
  readonly dailyLimitUsdE8: number
}

/** `countsUsdE8`: what a success adds to the user's day, in 1e-8 USD. */
export type Outcome<C extends Contract> =
  | { readonly output: OutputOf<C>; readonly countsUsdE8?: number }
  | { readonly failure: { readonly code: C['failures'][number]; readonly message: string } }

export type Performer<C extends Contract> = (facts: Facts<C>) => Outcome<C>
