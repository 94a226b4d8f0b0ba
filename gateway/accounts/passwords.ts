import { availableParallelism } from 'node:os'
import { Problem } from '@posta/common/service/problem.ts'

/** OWASP's first choice for argon2id: 19 MiB, two passes. */
const PARAMETERS = { algorithm: 'argon2id', memoryCost: 19 * 1024, timeCost: 2 } as const
const PREFIX = `$argon2id$v=19$m=${PARAMETERS.memoryCost},t=${PARAMETERS.timeCost},p=1$`

/**
 * Hashes and verifies passwords. Each keeps a core busy for tens of milliseconds, so they wait in queues, and may reject
 * with Problem `overloaded`. Each lane has a queue and a share of the cores that the others cannot take from it; what one
 * leaves, the others use. Within a lane, sources take turns.
 */
export interface Passwords {
  hash(password: string, by?: Asking): Promise<string>
  /** Without a hash it does the same work and resolves to false, so the time does not tell that there is no such user. */
  verify(password: string, hash: string | undefined, by?: Asking): Promise<boolean>
  /** Whether the hash was made with parameters other than today's. */
  isOutdated(hash: string): boolean
  /** How many wait in the queues. */
  waiting(): number
}

/** `source` is who asks, such as the client's network. */
export interface Asking {
  readonly lane: Lane
  readonly source: string
}

export type Lane = keyof typeof lanes

/**
 * `share`: how many turns a lane gets while the others wait, too. `waitingPerCore`: how many wait, at most. Work for a second
 * and a half in the lane of logins: a client that would wait longer has given up by then. A registration can wait for longer
 * than a login, and more of them are made up.
 */
const lanes = {
  /** Logins from known devices, and users who are logged in. */
  known: { share: 4, waitingPerCore: 32 },
  login: { share: 4, waitingPerCore: 32 },
  registration: { share: 1, waitingPerCore: 8 },
} as const

/** What does the work. Tests replace it. */
export type Hasher = Pick<typeof Bun.password, 'hash' | 'verify'>

export function createPasswords(hasher: Hasher = Bun.password, cores = availableParallelism()): Passwords {
  const { enqueue, waiting } = createQueue(cores)
  const noOne: Asking = { lane: 'login', source: '' }
  // The hash of a password that nobody has.
  const dummy = hasher.hash(Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64'), PARAMETERS)
  return {
    hash: (password, by = noOne) => enqueue(by, () => hasher.hash(password, PARAMETERS)),
    verify: (password, hash, by = noOne) =>
      enqueue(by, async () => {
        const matches = await hasher.verify(password, hash ?? (await dummy))
        return matches && hash !== undefined
      }),
    isOutdated: (hash) => !hash.startsWith(PREFIX),
    waiting,
  }
}

/** Runs at most `concurrency` tasks at once. The next one is of the lane that is furthest behind its share. */
function createQueue(concurrency: number) {
  const waiting = {
    known: createLane(concurrency * lanes.known.waitingPerCore, lanes.known.share),
    login: createLane(concurrency * lanes.login.waitingPerCore, lanes.login.share),
    registration: createLane(concurrency * lanes.registration.waitingPerCore, lanes.registration.share),
  }
  const all = Object.values(waiting)
  let running = 0
  /** How far the lane was that had the last turn. */
  let reached = 0

  /** Gives the place of a task that has ended to the next one: `running` stays the same while any task waits. */
  function startNext(): void {
    const busy = all.filter(({ count }) => count() > 0)
    const [next] = busy.toSorted((one, other) => one.reached() - other.reached())
    if (!next) {
      running -= 1
      return
    }
    reached = next.reached()
    next.start()
  }

  async function enqueue<Result>({ lane, source }: Asking, task: () => Promise<Result>): Promise<Result> {
    if (running < concurrency) running += 1
    else await waiting[lane].turnOf(source, reached)
    try {
      return await task()
    } finally {
      startNext()
    }
  }
  return { enqueue, waiting: () => all.reduce((sum, { count }) => sum + count(), 0) }
}

/**
 * Tasks that wait. Sources take turns, and the tasks of one source keep their order. A full lane refuses the newest task of
 * the source that has the most tasks in it: either the one that arrives or one that waits.
 */
function createLane(maxWaiting: number, share: number) {
  /** By source. The first source has the next turn. */
  const waiting = new Map<string, PromiseWithResolvers<void>[]>()
  let count = 0
  /** The turns it had, each counted as one part of its share. */
  let reached = 0

  return {
    count: () => count,
    reached: () => reached,
    /** @param others how far the other lanes are: one that had nothing to do has no turns to make up for */
    turnOf(source: string, others: number): Promise<void> {
      const own = waiting.get(source) ?? []
      if (count >= maxWaiting) {
        const most = [...waiting.values()].reduce((one, other) => (other.length > one.length ? other : one))
        if (most.length <= own.length + 1) throw overloaded()
        most.pop()?.reject(overloaded())
        count -= 1
      }
      if (count === 0) reached = Math.max(reached, others)
      const turn = Promise.withResolvers<void>()
      waiting.set(source, [...own, turn])
      count += 1
      return turn.promise
    },
    /** Starts the next task. */
    start(): void {
      const [first] = waiting
      if (!first) return
      const [source, [turn, ...others]] = first
      waiting.delete(source)
      if (others.length > 0) waiting.set(source, others)
      count -= 1
      reached += 1 / share
      turn?.resolve()
    },
  }
}

const overloaded = () => new Problem('overloaded', undefined, { retryAfterS: 2 })
