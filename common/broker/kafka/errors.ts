import { KafkaJSAggregateError, KafkaJSProtocolError, KafkaJSSASLAuthenticationError } from 'kafkajs'

/** The error and what caused it, outermost first. kafkajs wraps an error once for each of its retries. */
function* chain(error: unknown): Generator<Error> {
  // Bounded, since nothing keeps causes from going in a circle.
  for (let depth = 0, each = error; each instanceof Error && depth < 20; depth++) {
    yield each
    each = each instanceof KafkaJSAggregateError ? each.errors[0] : each.cause
  }
}

/** Kafka's name of the error that a broker answered, such as `UNKNOWN_TOPIC_OR_PARTITION`; undefined where none did. */
export function protocolError(error: unknown): string | undefined {
  for (const each of chain(error)) if (each instanceof KafkaJSProtocolError) return each.type
  return undefined
}

/** Whether the broker refused the name or the password. */
export function isRefusedLogin(error: unknown): boolean {
  return chain(error).some((each) => each instanceof KafkaJSSASLAuthenticationError)
}
