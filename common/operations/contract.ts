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
  /** It is done in steps, which may have effects outside and take long: its performer has `run`. */
  readonly steps?: true
  /** The answers that it may wait for, by name. Only an operation in steps has some. */
  readonly signals?: Signals
  /** Environment variables that its performer is given. */
  readonly settings?: Settings
  /** The operation is offered only where this one of `settings` is set. */
  readonly requires?: string
}

/** An answer that a run may wait for. */
export interface Signal {
  readonly description: string
  readonly payload: ObjectSchema
  /** Who gives it: the operation's owner, or an operator who is not its owner. */
  readonly from: 'owner' | 'operator'
}

/** By the name of the variable. A schema reads the text of the variable, or `undefined` where it is not set. */
type Settings = Readonly<Record<string, v.GenericSchema<string | undefined, unknown>>>

/**
 * A contract, whose facts may be left out.
 * @throws Error for signals without steps, and for a required variable that is not among the settings
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
  const { type, steps, signals = {}, settings = {}, requires } = contract
  if (Object.keys(signals).length > 0 && !steps) throw new Error(`${type}: only an operation in steps has signals.`)
  if (requires !== undefined && !Object.hasOwn(settings, requires))
    throw new Error(`${type}: what it requires, ${requires}, is not among its settings.`)
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
export type OutputOf<C extends Contract> = v.InferOutput<C['output']>
export type FactsOf<C extends Contract> = v.InferOutput<C['facts']>
export type SettingsOf<C extends Contract> = C extends { readonly settings: infer S extends Settings }
  ? { readonly [Name in keyof S]: v.InferOutput<S[Name]> }
  : Readonly<Record<string, unknown>>
type Signals = Readonly<Record<string, Signal>>
type SignalsOf<C extends Contract> = C extends { readonly signals: infer S extends Signals }
  ? S
  : Contract extends C
    ? Signals
    : Readonly<Record<never, Signal>>
export type SignalName<C extends Contract> = keyof SignalsOf<C> & string
export type PayloadOf<C extends Contract, Name extends SignalName<C>> = v.InferOutput<SignalsOf<C>[Name]['payload']>
