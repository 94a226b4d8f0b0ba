import { availableParallelism } from 'node:os'
import { Problem } from '@posta/common/service/problem.ts'

/** OWASP's first choice for argon2id: 19 MiB, two passes. */
const PARAMETERS = { algorithm: 'argon2id', memoryCost: 19 * 1024, timeCost: 2 } as const
const PREFIX = `$argon2id$v=19$m=${PARAMETERS.memoryCost},t=${PARAMETERS.timeCost},p=1$`

/** Hashes take a core each for tens of milliseconds, so they queue. Each may reject with Problem `overloaded`. */
export interface Passwords {
  hash(password: string): Promise<string>
  /** Without a hash, does the same work and answers false: nobody can tell by the time that there is no such user. */
  verify(password: string, hash: string | undefined): Promise<boolean>
  /** Whether the hash was made with other parameters than today's. */
  isOutdated(hash: string): boolean
  /** How many wait for their turn. */
  waiting(): number
}

/** How the work is done; tests count it. */
export type Hasher = Pick<typeof Bun.password, 'hash' | 'verify'>

/** About a second and a half of work: who waits longer has given up. */
const MAX_WAITING_PER_CORE = 32

export function createPasswords(hasher: Hasher = Bun.password, cores = availableParallelism()): Passwords {
  const { enqueue, waiting } = createQueue(cores, cores * MAX_WAITING_PER_CORE)
  // Of a password that nobody has.
  const dummy = hasher.hash(Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64'), PARAMETERS)
  return {
    hash: (password) => enqueue(() => hasher.hash(password, PARAMETERS)),
    verify: (password, hash) =>
      enqueue(async () => {
        const matches = await hasher.verify(password, hash ?? (await dummy))
        return matches && hash !== undefined
      }),
    isOutdated: (hash) => !hash.startsWith(PREFIX),
    waiting,
  }
}

/** Runs at most `concurrency` tasks at once, in order; refuses one that would find `maxWaiting` before it. */
function createQueue(concurrency: number, maxWaiting: number) {
  const waiting: (() => void)[] = []
  let running = 0
  async function enqueue<Result>(task: () => Promise<Result>): Promise<Result> {
    if (running >= concurrency) {
      if (waiting.length >= maxWaiting) throw new Problem('overloaded', undefined, { retryAfterS: 2 })
      // Whoever ends hands its place on, so `running` stays as it is.
      await new Promise<void>((resolve) => waiting.push(resolve))
    } else running += 1
    try {
      return await task()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
  return { enqueue, waiting: () => waiting.length }
}
