import type { Limit } from './contract.ts'

/** What a user's orders of one UTC day may come to, in USD. */
export const dailyUsd = {
  name: 'daily-usd',
  period: 'day',
  variable: 'DAILY_LIMIT_USD',
  defaultBound: '10000',
  digits: 8,
} as const satisfies Limit
