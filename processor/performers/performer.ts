import type {
  Contract,
  FactsOf,
  InputOf,
  OutputOf,
  PayloadOf,
  SettingsOf,
  SignalName,
} from '@posta/common/operations/contract.ts'
import type { ExternalHttp } from '@posta/common/service/external-http.ts'

/** A value that JSON can hold. What a step returns is stored as such. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [member: string]: Json | undefined }

/** In the limit's units. For a contract without a limit `used` is 0 and `bound` is infinite. */
export interface LimitState {
  /** What the user's earlier operations of the period count. */
  readonly used: number
  readonly bound: number
}

/** The operation that is asked for. */
export interface Asked<C extends Contract> {
  readonly id: string
  readonly user: string
  /** When gateway accepted the operation, RFC 3339. */
  readonly createdAt: string
  readonly input: InputOf<C>
  readonly facts: FactsOf<C>
}

/** All that a decision may depend on. */
export interface Decidable<C extends Contract> extends Asked<C> {
  readonly limit: LimitState
  readonly settings: SettingsOf<C>
}

export interface Failure<C extends Contract> {
  readonly failure: { readonly code: C['failures'][number]; readonly message: string }
}

export interface Success<C extends Contract> {
  readonly output: OutputOf<C>
  /** What it counts against the limit, in the limit's units. */
  readonly counts?: number
  /** Lets the result be found as the newest with this key: the one whose `order` sorts last, and of those the latest. */
  readonly lookup?: { readonly key: string; readonly order: string }
}

/** The operation is to be done in steps. */
export interface GoOn {
  /** What the run is given as `context.decided`. */
  readonly goOn: Json
  /** What it counts against the limit from now on, in the limit's units. If the run fails it counts nothing. */
  readonly counts?: number
}

export type Outcome<C extends Contract> = Success<C> | Failure<C> | (C extends { readonly steps: true } ? GoOn : never)

/** How a step's function is called. */
export interface Attempt {
  /** The same in every attempt, whichever processor makes it: `<operation>/<step>`, of an undo `<operation>/<step>/undo`. */
  readonly idempotencyKey: string
  /** From 1. */
  readonly attempt: number
  /** Aborts when the step has used up its time, or the processor closes. */
  readonly signal: AbortSignal
}

/** A step is not done yet, and is to be called again after this time. It does not count as a failed attempt. */
export class Later {
  readonly delayMs: number
  constructor(delayMs: number) {
    this.delayMs = delayMs
  }
}

/** @example await context.step('settled', async () => ((await isSettled()) ? 'settled' : later(60_000))) */
export function later(delayMs: number): Later {
  return new Later(delayMs)
}

export interface StepOptions<Result> {
  /**
   * Takes back what the step did, where the run fails or is cancelled. Called with the step's result. What it returns is not
   * kept; `later` has it called again.
   */
  readonly undo?: (result: Result, attempt: Attempt) => Promise<unknown>
  /** The point of no return: once it has started, neither cancel nor time-out stops the run. */
  readonly final?: boolean
  /** How long an attempt may take; 30 s. */
  readonly timeoutMs?: number
  /** How many attempts may fail before the run is stuck; 20. */
  readonly attempts?: number
  /**
   * The pause after the first failed attempt, which doubles with each; 1 s. It is longer where the attempt failed with an
   * error of `http`, or one that has it as its cause, and the answer 429 or 503 asked for that by `Retry-After`.
   */
  readonly firstPauseMs?: number
  /** The longest such pause; 1 hour. */
  readonly longestPauseMs?: number
}

/**
 * What a run does everything with. Its calls must come in the same order each time with the same results, so a run takes
 * time and randomness from here, and makes one call at a time.
 */
export interface RunContext<C extends Contract> extends Asked<C> {
  /** What `decide` said with "go on". */
  readonly decided: Json
  readonly settings: SettingsOf<C>
  /** For what steps do outside: bounded in time and size. */
  readonly http: ExternalHttp
  /**
   * Does one thing outside. Resolves to what `work` returned, recorded durably; after a crash the recorded result is given
   * back. An error is tried again. A run that has to fail returns a failure; a step says so by its result.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: a step may return nothing
  step<Result extends Json | undefined | void>(
    name: string,
    work: (attempt: Attempt) => Promise<Result | Later>,
    options?: StepOptions<Result>,
  ): Promise<Result>
  sleep(name: string, ms: number): Promise<void>
  /** Waits for an answer. Undefined: it did not come within that time (until the run's longest life by default). */
  signal<Name extends SignalName<C>>(
    name: Name,
    options?: { readonly withinMs?: number },
  ): Promise<PayloadOf<C, Name> | undefined>
  /** When the last step or wait was done; before the first, when `decide` said to go on. In ms since the epoch. */
  now(): number
  /** From 0 to 1, without 1. */
  random(): number
}

/**
 * What an operation does.
 * @example
 * const doubler: Performer<typeof double> = { decide: ({ input }) => ({ output: { number: 2 * input.number } }) }
 */
export interface DecidingPerformer<C extends Contract> {
  /**
   * Must be pure: the same arguments give the same outcome, on every machine and at any time.
   * @throws Error if the facts do not suffice. The request is tried again, and dead-lettered in the end.
   */
  decide(asked: Decidable<C>): Outcome<C>
}

/** A performer's `run`. It is typed as a method, so that a performer of any contract can be passed as `AnyPerformer`. */
export type Run<C extends Contract> = {
  run(context: RunContext<C>): Promise<Omit<Success<C>, 'counts'> | Failure<C>>
}['run']

export interface SteppedPerformer<C extends Contract> extends DecidingPerformer<C> {
  /** Called again after each wait and each crash, and given what was recorded. */
  run(context: RunContext<C>): ReturnType<Run<C>>
  /** From 1, which is the default. Raise it with every change of the steps, and keep the code before in `earlier`. */
  readonly version?: number
  /** What runs of earlier versions go on with, until none is left. */
  readonly earlier?: Readonly<Record<number, Run<C>>>
}

/** A performer of whatever operation. */
export interface AnyPerformer extends Partial<Omit<SteppedPerformer<Contract>, 'decide'>> {
  decide(asked: Decidable<Contract>): Success<Contract> | Failure<Contract> | GoOn
}

export type Performer<C extends Contract> = C extends { readonly steps: true }
  ? SteppedPerformer<C>
  : DecidingPerformer<C>
