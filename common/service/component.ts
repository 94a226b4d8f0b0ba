/**
 * One thing that a service consists of. Components start in the order in which their service lists them, and close in the
 * reverse order, after HTTP. The service is ready when their checks succeed.
 * @example
 * const store: Component = { name: 'store', check: () => results.ping(), close: () => results.close() }
 */
export interface Component {
  readonly name: string
  /** True: without it the service cannot answer HTTP at all. */
  readonly required?: boolean
  /** Rejects when the service cannot run without it and waiting would not help. */
  start?(): Promise<void>
  /** Rejects or throws, with the reason, while it does not work. */
  check?(): Promise<void> | void
  /** Closes within about `graceMs`. What was accepted is not lost. */
  close?(graceMs: number): Promise<void>
  /** Rejects when the component has given up: then the process ends, so that it can be started anew. */
  readonly ended?: Promise<void>
}
