import * as v from 'valibot'

export interface Credentials {
  readonly email: string
  readonly password: string
}

/** With whom and where operations are shown. */
export interface Demonstrated {
  readonly gatewayUrl: string
  /** Of two sessions of one user. */
  readonly tokens: readonly [rest: string, graphql: string]
  readonly operator: Credentials
}

/** The answer of a GraphQL request that succeeded. */
export function dataOf<Fields extends v.ObjectEntries>(fields: Fields) {
  return v.object({ data: v.object(fields) })
}

/** A line for the reader, and below it what was answered. */
export function say(text: string, value?: unknown): void {
  console.log(value === undefined ? text : `${text}\n    ${typeof value === 'string' ? value : JSON.stringify(value)}`)
}
