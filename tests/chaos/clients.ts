import * as v from 'valibot'
import { type Answer, type call, Tokens } from '../../tools/client.ts'
import { tryCall } from '../testing/try-call.ts'
import { PASSWORD } from '../testing/users.ts'
import { type Note, SeenOperation } from './history.ts'
import type { Random } from './random.ts'
import { type Told, tell } from './tell.ts'

/** People who use the system, and note everything that they do and are answered. */
export interface Clients {
  /** From now on submissions belong to the time without faults. */
  calm(): void
  /** Ends new submissions. Resolves when those under way are finished or given up. */
  stop(): Promise<void>
  /** Asks each gateway for each accepted operation, until it has shown it terminal. Resolves to how many it has not. */
  lookAgain(): Promise<number>
  /** How many operations were accepted so far. */
  acknowledged(): number
}

/** A person waits while so many of their operations are pending, so that a slow system gets no long backlog. */
const MAX_PENDING = 8
/** After so many operations another person takes over, since a user's daily limit is soon reached. */
const OPERATIONS_PER_USER = 40
const ANSWER_WITHIN_MS = 8000
const GIVE_UP_AFTER_MS = 60_000
const LOOK_FOR_MS = 120_000
const LONGEST_PAUSE_MS = 2000
const LOOKERS = 8

const Problem = v.object({ code: v.string() })
const User = v.object({ id: v.string() })
const Streamed = v.pipe(v.string(), v.parseJson(), SeenOperation)

interface Person {
  readonly email: string
  id: string
  token: string
  /** The operations that they wait for, or may still cancel. */
  readonly looking: Set<Promise<void>>
}

interface Submission {
  readonly key: string
  readonly type: string
  readonly input: Record<string, string>
}

export function startClients(options: {
  /** The URL of every gateway. */
  readonly urls: readonly string[]
  readonly people: number
  /** Between two submissions of one person, on average. */
  readonly pauseMs: number
  readonly note: Note
  readonly random: Random
}): Clients {
  const { urls, people, pauseMs, note, random } = options
  const stopping = new AbortController()
  const stopped = () => stopping.signal.aborted
  /** Who submitted each accepted operation. */
  const owners = new Map<string, Person>()
  let unseen: { id: string; person: Person; url: string }[] | undefined
  let isCalm = false

  const anyUrl = () => random.pick(urls)

  function ask(
    method: 'GET' | 'POST',
    path: string,
    { url = anyUrl(), ...request }: Omit<NonNullable<Parameters<typeof call>[2]>, 'signal'> & { url?: string },
  ): Promise<Answer> {
    return tryCall(method, url + path, { ...request, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
  }

  async function pause(tries: number): Promise<void> {
    await Bun.sleep(Math.min(100 * 2 ** tries, LONGEST_PAUSE_MS) * (0.5 + random.next() / 2))
  }

  /** Registers the person and logs them in; undefined where the run ended before that. */
  async function become(email: string): Promise<Person | undefined> {
    const person: Person = { email, id: '', token: '', looking: new Set() }
    for (let tries = 0; !stopped(); tries++) {
      const { status } = await ask('POST', '/auth/register', { body: { email, password: PASSWORD } })
      if (status === 201 || status === 409) break
      await pause(tries)
    }
    if (!(await logIn(person))) return undefined
    note({ kind: 'user', user: person.id })
    return person
  }

  async function logIn(person: Person): Promise<boolean> {
    const body = { email: person.email, password: PASSWORD }
    for (let tries = 0; tries <= 60; tries++) {
      const answer = await ask('POST', '/auth/login', { body })
      if (answer.status === 200 && v.is(Tokens, answer.body)) {
        person.token = answer.body.accessToken
        if (person.id !== '') return true
        const me = await ask('GET', '/auth/me', { token: person.token })
        if (v.is(User, me.body)) person.id = me.body.id
        if (person.id !== '') return true
      }
      if (stopped()) return false
      await pause(tries)
    }
    return false
  }

  async function live(number: number): Promise<void> {
    for (let life = 0; !stopped(); life++) {
      const person = await become(`person-${number}-${life}@example.com`)
      for (let n = 0; person && n < OPERATIONS_PER_USER && !stopped(); n++) {
        await Bun.sleep(2 * pauseMs * random.next())
        while (person.looking.size >= MAX_PENDING) await Promise.race(person.looking)
        await order(person, `${number}-${life}-${n}`)
      }
    }
  }

  /** Submits one operation, and waits for it while the person goes on. Some submissions are wrong or repeated. */
  async function order(person: Person, name: string): Promise<void> {
    const submission = { key: `${isCalm ? 'calm' : 'order'}-${name}`, ...anyOperation() }
    if (random.chance(0.05)) await submit(person, { key: `wrong-${name}`, type: 'convert', input: wrongInput() })
    const id = await submit(person, submission)
    if (id === undefined) return
    if (random.chance(0.1)) await submit(person, submission, 1000)
    // Another operation with the same key.
    if (random.chance(0.03)) await submit(person, { ...submission, type: 'convert', input: usdToArs('0.01') }, 2000)
    follow(person, random.chance(0.15) ? stream(person, id) : look(person, id))
    const isPayout = submission.type === 'payout'
    if (random.chance(isPayout ? 0.3 : 0.05)) follow(person, regret(person, id))
    // Nobody approves their own.
    if (isPayout && random.chance(0.03)) follow(person, tellIt(person, id, { what: 'approve', approved: true }))
  }

  function follow(person: Person, work: Promise<unknown>): void {
    const looking = work.then(() => void person.looking.delete(looking))
    person.looking.add(looking)
  }

  /** Cancels an operation: before it is performed, while it waits or after its end, and sometimes twice. */
  async function regret(person: Person, id: string): Promise<void> {
    await Bun.sleep(random.pick([0, 300, 1500, 6000]) * random.next())
    const times = random.chance(0.2) ? 2 : 1
    for (let n = 0; n < times && !stopped(); n++) await tellIt(person, id, { what: 'cancel' })
  }

  const tellIt = (person: Person, id: string, told: Told) =>
    tell(id, told, { user: () => person, anyUrl, note, logIn: () => logIn(person), pause })

  function anyOperation(): Pick<Submission, 'type' | 'input'> {
    const from = random.pick(['USD', 'USD', 'EUR'])
    if (random.chance(0.15)) return { type: 'store-rates', input: { base: from } }
    const to = random.pick(['ARS', 'JPY', 'KWD', 'BTC'])
    const amount = `${random.integer(0, 40)}.${String(random.integer(1, 99_999_999)).padStart(8, '0')}`
    const input = { from, to, amount }
    if (random.chance(0.6)) return { type: 'convert', input }
    const payee = `${random.pick([...Array<string>(6).fill('payee'), 'refused', 'bounced'])}-${random.integer(1, 99)}`
    return { type: 'payout', input: { ...input, payee } }
  }

  /** What must be refused and leave nothing behind. */
  function wrongInput(): Record<string, string> {
    return random.pick([usdToArs('-1'), { ...usdToArs('1'), to: 'XYZW' }, usdToArs('1e3')])
  }

  /** Sends with the same key until it is accepted or refused for good. Resolves to the operation's id, if any. */
  async function submit(person: Person, submission: Submission, firstAttempt = 0): Promise<string | undefined> {
    const { key, type, input } = submission
    const giveUpMs = performance.now() + GIVE_UP_AFTER_MS
    for (let attempt = firstAttempt; performance.now() < giveUpMs; attempt++) {
      const common = { user: person.id, key, attempt }
      const wait = random.chance(0.2) ? { Prefer: 'wait=5' } : {}
      note({ kind: 'submit', ...common, type, input })
      const { status, body } = await ask('POST', '/operations', {
        token: person.token,
        body: { type, input },
        headers: { 'Idempotency-Key': key, ...wait },
      })
      if (status === 0) note({ kind: 'unknown', ...common, reason: String(body) })
      else {
        const operation = v.is(SeenOperation, body) ? body : undefined
        note({ kind: 'answer', ...common, status, code: v.is(Problem, body) ? body.code : undefined, operation })
        if (operation) {
          owners.set(operation.id, person)
          return operation.id
        }
        if (status === 401) await logIn(person)
        else if (status < 500 && status !== 429) return undefined
      }
      await pause(attempt - firstAttempt)
    }
    return undefined
  }

  async function look(person: Person, id: string): Promise<void> {
    const enoughMs = performance.now() + LOOK_FOR_MS
    for (let tries = 0; performance.now() < enoughMs && !stopped(); tries++) {
      await pause(tries)
      if (await see(person, id, 'get', anyUrl())) return
    }
  }

  /** Resolves to whether the operation is terminal. */
  async function see(person: Person, id: string, how: 'get' | 'last', url: string): Promise<boolean> {
    const { status, body } = await ask('GET', `/operations/${id}`, { token: person.token, url })
    if (status === 401) await logIn(person)
    if (status === 0 || status === 401) return false
    const operation = v.is(SeenOperation, body) ? body : undefined
    note({ kind: 'seen', user: person.id, id, how, status, operation })
    return operation !== undefined && operation.status !== 'pending'
  }

  async function stream(person: Person, id: string): Promise<void> {
    const signal = AbortSignal.any([AbortSignal.timeout(20_000), stopping.signal])
    const headers = { accept: 'text/event-stream' }
    const { body } = await tryCall('GET', `${anyUrl()}/operations/${id}/stream`, {
      token: person.token,
      headers,
      signal,
    })
    // Where the stream was cut, what it had shown is lost.
    if (typeof body === 'string')
      for (const [, data] of body.matchAll(/^data: (\{.*)$/gm)) {
        const shown = v.safeParse(Streamed, data)
        if (shown.success)
          note({ kind: 'seen', user: person.id, id, how: 'stream', status: 200, operation: shown.output })
      }
    await look(person, id)
  }

  const lives = Array.from({ length: people }, (_, number) => live(number))
  return {
    calm() {
      isCalm = true
    },
    async stop() {
      stopping.abort()
      await Promise.all(lives)
      await Promise.all([...owners.values()].flatMap(({ looking }) => [...looking]))
    },
    async lookAgain() {
      unseen ??= [...owners].flatMap(([id, person]) => urls.map((url) => ({ id, person, url })))
      const asked = unseen
      unseen = []
      const lookers = Array.from({ length: LOOKERS }, async () => {
        for (let next = asked.pop(); next; next = asked.pop())
          if (!(await see(next.person, next.id, 'last', next.url))) unseen?.push(next)
      })
      await Promise.all(lookers)
      return unseen.length
    },
    acknowledged: () => owners.size,
  }
}

function usdToArs(amount: string): Record<string, string> {
  return { from: 'USD', to: 'ARS', amount }
}
