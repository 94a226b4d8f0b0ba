import * as v from 'valibot'
import type { ProblemCode } from '../service/problem.ts'

/** `v.strictObject` refuses unknown members: for what clients send. `v.object` ignores them: for messages. */
type ObjectSchema = v.GenericSchema<unknown, Record<string, unknown>>

const noFacts = v.undefined_()

/**
 * Describes an operation to all services. Gateway validates `input`, both APIs and all documents follow from it, and
 * processor performs it. What it does is its performer, `processor/performers/<type>.ts`. What gateway learns from outside
 * before it accepts the operation are its facts, which its preparer fetches, `gateway/preparers/<type>.ts`.
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
  /** What gateway learns from outside before it accepts the operation, and sends along. */
  readonly facts: ObjectSchema | typeof noFacts
  /** What the operation counts against. Without it: nothing. */
  readonly limit?: Limit
}

/**
 * A contract, whose facts may be left out.
 * @example
 * const double = defineContract({
 *   type: 'double',
 *   summary: 'Double a number',
 *   description: 'Answers with twice the number.',
 *   input: v.strictObject({ number: v.number() }),
 *   output: v.object({ number: v.number() }),
 *   failures: [],
 * })
 */
export function defineContract<const C extends Contract>(contract: C): C
export function defineContract<const C extends Omit<Contract, 'facts'>>(
  contract: C,
): C & { readonly facts: typeof noFacts }
export function defineContract(contract: Omit<Contract, 'facts'>): Contract {
  return { facts: noFacts, ...contract }
}

/** How much a user's operations may come to in a period. Operations whose limits have one name count together. */
export interface Limit {
  readonly name: string
  /** The UTC day, or the hour, of the time at which gateway accepted the operation. */
  readonly period: 'day' | 'hour'
  /** The environment variable that holds the bound, a decimal number. */
  readonly variable: string
  readonly defaultBound: string
  /**
   * Amounts are counted in whole units of 10^-digits, so that they add up exactly. The bound has at most this many digits
   * after the point.
   */
  readonly digits: number
}

/** The period in which an operation counts: the beginning of its time of acceptance, such as `2026-11-24` or `2026-11-24T15`. */
export function periodOf({ period }: Limit, createdAt: string): string {
  return new Date(createdAt).toISOString().slice(0, period === 'day' ? 10 : 13)
}

export type InputOf<C extends Contract> = v.InferOutput<C['input']>
type OutputOf<C extends Contract> = v.InferOutput<C['output']>
export type FactsOf<C extends Contract> = v.InferOutput<C['facts']>

/** In the limit's units. For a contract without a limit `used` is 0 and `bound` is infinite. */
export interface LimitState {
  /** What the user's earlier operations of the period count. */
  readonly used: number
  readonly bound: number
}

/** All that a decision may depend on. */
export interface Decidable<C extends Contract> {
  readonly id: string
  readonly user: string
  /** When gateway accepted the operation, RFC 3339. */
  readonly createdAt: string
  readonly input: InputOf<C>
  readonly facts: FactsOf<C>
  readonly limit: LimitState
}

export type Outcome<C extends Contract> =
  | {
      readonly output: OutputOf<C>
      /** What it counts against the limit, in the limit's units. */
      readonly counts?: number
      /** Lets the result be found as the newest with this key: the one whose `order` sorts last, and of those the latest. */
      readonly lookup?: Lookup
    }
  | { readonly failure: { readonly code: C['failures'][number]; readonly message: string } }

interface Lookup {
  readonly key: string
  readonly order: string
}

/**
 * What an operation does.
 * @example
 * const doubler: Performer<typeof double> = { decide: ({ input }) => ({ output: { number: 2 * input.number } }) }
 */
export interface Performer<C extends Contract> {
  /**
   * Must be pure: the same arguments give the same outcome, on every machine and at any time.
   * @throws Error if the facts do not suffice. The request is tried again, and dead-lettered in the end.
   */
  decide(asked: Decidable<C>): Outcome<C>
}
