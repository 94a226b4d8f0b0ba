import { availableParallelism } from 'node:os'
import { Problem } from '@posta/common/service/problem.ts'

/** OWASP's first choice for argon2id: 19 MiB, two passes. */
const PARAMETERS = { algorithm: 'argon2id', memoryCost: 19 * 1024, timeCost: 2 } as const
const PREFIX = `$argon2id$v=19$m=${PARAMETERS.memoryCost},t=${PARAMETERS.timeCost},p=1$`

/**
 * Hashes and verifies passwords. Each keeps a core busy for tens of milliseconds, so they wait in a queue, and may reject
 * with Problem `overloaded`. `source` is who asks, such as the client's network. Sources take turns: none of them can keep
 * the others out.
 */
export interface Passwords {
  hash(password: string, source?: string): Promise<string>
  /** Without a hash it does the same work and resolves to false, so the time does not tell that there is no such user. */
  verify(password: string, hash: string | undefined, source?: string): Promise<boolean>
  /** Whether the hash was made with parameters other than today's. */
  isOutdated(hash: string): boolean
  /** How many wait in the queue. */
  waiting(): number
}

/** What does the work. Tests replace it. */
export type Hasher = Pick<typeof Bun.password, 'hash' | 'verify'>

/** About a second and a half of work. A client that would wait longer has given up by then. */
const MAX_WAITING_PER_CORE = 32

export function createPasswords(hasher: Hasher = Bun.password, cores = availableParallelism()): Passwords {
  const { enqueue, waiting } = createQueue(cores, cores * MAX_WAITING_PER_CORE)
  // The hash of a password that nobody has.
  const dummy = hasher.hash(Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64'), PARAMETERS)
  return {
    hash: (password, source = '') => enqueue(source, () => hasher.hash(password, PARAMETERS)),
    verify: (password, hash, source = '') =>
      enqueue(source, async () => {
        const matches = await hasher.verify(password, hash ?? (await dummy))
        return matches && hash !== undefined
      }),
    isOutdated: (hash) => !hash.startsWith(PREFIX),
    waiting,
  }
}

/**
 * Runs at most `concurrency` tasks at once. Sources take turns, and the tasks of one source keep their order. A full queue
 * refuses the newest task of the source that has the most tasks in it: either the one that arrives or one that waits.
 */
function createQueue(concurrency: number, maxWaiting: number) {
  /** By source. The first source has the next turn. */
  const waiting = new Map<string, PromiseWithResolvers<void>[]>()
  let count = 0
  let running = 0

  async function turnOf(source: string): Promise<void> {
    if (running < concurrency) {
      running += 1
      return
    }
    const own = waiting.get(source) ?? []
    if (count >= maxWaiting) {
      const most = [...waiting.values()].reduce((one, other) => (other.length > one.length ? other : one))
      if (most.length <= own.length + 1) throw overloaded()
      most.pop()?.reject(overloaded())
      count -= 1
    }
    const turn = Promise.withResolvers<void>()
    waiting.set(source, [...own, turn])
    count += 1
    await turn.promise
  }

  /** Gives the place of a task that has ended to the next one: `running` stays the same while any task waits. */
  function startNext(): void {
    const [first] = waiting
    if (!first) {
      running -= 1
      return
    }
    const [source, [turn, ...others]] = first
    waiting.delete(source)
    if (others.length > 0) waiting.set(source, others)
    count -= 1
    turn?.resolve()
  }

  async function enqueue<Result>(source: string, task: () => Promise<Result>): Promise<Result> {
    await turnOf(source)
    try {
      return await task()
    } finally {
      startNext()
    }
  }
  return { enqueue, waiting: () => count }
}

const overloaded = () => new Problem('overloaded', undefined, { retryAfterS: 2 })
