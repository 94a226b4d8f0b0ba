const DAY_MS = 24 * 60 * 60 * 1000

/**
 * How long gateway keeps an operation after it was accepted, and processor its result after it was performed: a year and a
 * month, so that last year's operations can be looked up. Gateway never deletes a pending operation. An idempotency key
 * lives as long as its operation.
 *
 * An older request is not performed, since it may have been performed before. Only a redrive can bring one: topics keep
 * messages for a far shorter time (messages/topics.ts).
 */
export const OPERATION_RETENTION_MS = 400 * DAY_MS
