import { KafkaJSAggregateError, KafkaJSProtocolError, KafkaJSSASLAuthenticationError } from 'kafkajs'

/** The error and its causes, outermost first. kafkajs wraps an error once for each retry. */
function* causes(error: unknown): Generator<Error> {
  // Bounded, since a cause may lead back to its error.
  for (let depth = 0, each = error; each instanceof Error && depth < 20; depth++) {
    yield each
    each = each instanceof KafkaJSAggregateError ? each.errors[0] : each.cause
  }
}

/** Kafka's name of an error that a broker answered, such as `INVALID_RECORD`; undefined for any other error. */
export function protocolError(error: unknown): string | undefined {
  return causes(error).find((each) => each instanceof KafkaJSProtocolError)?.type
}

/** Whether the broker refused the name or the password. */
export function isRefusedLogin(error: unknown): boolean {
  return causes(error).some((each) => each instanceof KafkaJSSASLAuthenticationError)
}
