import type { Contract, FactsOf, InputOf } from '@posta/common/operations/contract.ts'
import type { ExternalHttp } from '@posta/common/service/external-http.ts'
import type { Rates } from '../rates/rates.ts'

/** What preparers learn from. */
export interface Sources {
  /** For external HTTP APIs: bounded in time and size. */
  readonly http: ExternalHttp
  readonly rates: Rates // example
}

interface Preparable<C extends Contract> {
  readonly input: InputOf<C>
  /** The user's id. */
  readonly user: string
  /** Aborts when the submission has waited for long enough. */
  readonly signal: AbortSignal
}

/**
 * Learns from outside what an operation's decision depends on, before gateway accepts the operation. It may be called again
 * for the same submission, so it must have no effect outside.
 * @throws Problem for a submission that cannot be accepted, with a pointer into the input where one member is the reason
 *
 * It is typed as a method, so that a preparer of any contract is a `Preparer<Contract>`.
 * @example
 * const greet: Preparer<Catalog['greet']> = async ({ input, signal }, { http }) =>
 *   http.get(`https://names.example.com/${encodeURIComponent(input.id)}`, { signal }).json()
 */
export type Preparer<C extends Contract> = {
  prepare(asked: Preparable<C>, sources: Sources): Promise<FactsOf<C>>
}['prepare']
