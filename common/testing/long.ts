/**
 * For tests that take seconds each: those that start, kill or attack whole systems, or wait until a process counts as dead.
 * They run with TEST_ALL=1, which `bun run verify` sets, so that `bun test` alone stays quick.
 */
export const isLong = process.env.TEST_ALL === '1'
