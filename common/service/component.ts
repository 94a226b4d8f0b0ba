/**
 * One thing that a service consists of: how it starts, how it is, and how it closes. Components start in the order in
 * which their service lists them and close in the reverse order, after HTTP. Readiness follows from their checks.
 * @example
 * const store: Component = { name: 'store', check: () => results.ping(), close: () => results.close() }
 */
export interface Component {
  readonly name: string
  /** Whether the service cannot answer HTTP at all without it. */
  readonly required?: boolean
  /** Rejects where the service cannot run without it and waiting would not help. */
  start?(): Promise<void>
  /** Rejects, or throws, with the reason while it does not work. */
  check?(): Promise<void> | void
  /** Closes within about `graceMs`. Nothing that was promised is lost. */
  close?(graceMs: number): Promise<void>
  /** Rejects when the component has given up: the process should end and be started anew. */
  readonly ended?: Promise<void>
}
