const DAY_MS = 24 * 60 * 60 * 1000

/**
 * How long gateway keeps an operation, since it was accepted, and processor its result, since it was performed: a year
 * and a month, so that last year's conversions can still be looked up. Gateway never deletes one that is pending.
 *
 * An idempotency key lives as long as its operation. A request that is older is not performed any more, since nothing
 * could tell that it was before; topics keep messages for far less (messages/topics.ts), so only a redrive could bring
 * such a one.
 */
export const OPERATION_RETENTION_MS = 400 * DAY_MS
