import * as v from 'valibot'
import { type Answer, call, Tokens } from '../../tools/client.ts'
import { type History, SeenOperation } from './history.ts'
import type { Random } from './random.ts'

/** People who use the system, as long as it lasts, and note everything that they were told. */
export interface Clients {
  /** Submissions from now on are of a time without faults. */
  calm(): void
  /** No new submissions; those under way are finished, or given up. */
  stop(): Promise<void>
  /** Asks each gateway for each acknowledged operation until that one has shown it terminal. Resolves to how many it has not. */
  lookAgain(): Promise<number>
  readonly acknowledged: number
}

const PASSWORD = 'nobody else knows this sentence'
/** Nobody submits more while so many of the own operations are pending: what is in flight stays bounded. */
const MAX_PENDING = 8
/** After so many operations someone else takes the place: the limit of a user's day is soon reached. */
const OPERATIONS_PER_USER = 40
const ANSWER_WITHIN_MS = 8000
const GIVE_UP_AFTER_MS = 60_000
const LOOK_FOR_MS = 120_000
const LONGEST_PAUSE_MS = 2000
const LOOKERS = 8

const Problem = v.object({ code: v.string() })
const User = v.object({ id: v.string() })

interface Person {
  readonly email: string
  id: string
  token: string
}

interface Submission {
  readonly key: string
  readonly type: string
  readonly input: Record<string, string>
}

export function startClients(options: {
  /** Of every gateway. */
  readonly urls: readonly string[]
  readonly people: number
  /** Between two submissions of one person, on average. */
  readonly pauseMs: number
  readonly history: History
  readonly random: Random
}): Clients {
  const { urls, people, pauseMs, history, random } = options
  const stopping = new AbortController()
  const stopped = () => stopping.signal.aborted
  const persons = new Map<string, Person>()
  const owners = new Map<string, Person>()
  const looking = new Map<Promise<void>, Person>()
  let unseen: { id: string; person: Person; url: string }[] | undefined
  let calm = false
  let count = 0

  const anyUrl = () => random.pick(urls)

  /** An answer, or undefined where none came. */
  async function ask(
    method: 'GET' | 'POST',
    path: string,
    asked: { token?: string; body?: unknown; headers?: Record<string, string>; url?: string },
  ): Promise<Answer | { status: 0; reason: string }> {
    const { url = anyUrl(), ...request } = asked
    try {
      return await call(method, url + path, { ...request, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
    } catch (error) {
      return { status: 0, reason: error instanceof Error ? error.name : String(error) }
    }
  }

  async function become(email: string): Promise<Person | undefined> {
    const body = { email, password: PASSWORD }
    for (let tries = 0; !stopped(); tries++) {
      const registered = await ask('POST', '/auth/register', { body })
      if (registered.status === 201 || registered.status === 409) break
      await pause(tries)
    }
    const person: Person = { email, id: '', token: '' }
    if (!(await logIn(person))) return undefined
    history.add({ kind: 'user', atMs: Date.now(), user: person.id })
    persons.set(person.id, person)
    return person
  }

  async function logIn(person: Person): Promise<boolean> {
    const body = { email: person.email, password: PASSWORD }
    for (let tries = 0; ; tries++) {
      const answer = await ask('POST', '/auth/login', { body })
      if ('body' in answer && answer.status === 200 && v.is(Tokens, answer.body)) {
        person.token = answer.body.accessToken
        if (person.id === '') {
          const me = await ask('GET', '/auth/me', { token: person.token })
          if ('body' in me && v.is(User, me.body)) person.id = me.body.id
        }
        if (person.id !== '') return true
      }
      if (tries > 60 || stopped()) return false
      await pause(tries)
    }
  }

  async function live(number: number): Promise<void> {
    for (let life = 0; !stopped(); life++) {
      const person = await become(`person-${number}-${life}@example.com`)
      for (let n = 0; person && n < OPERATIONS_PER_USER && !stopped(); n++) {
        await Bun.sleep(2 * pauseMs * random.next())
        for (let own = lookingOf(person); own.length >= MAX_PENDING; own = lookingOf(person)) await Promise.race(own)
        await order(person, `${number}-${life}-${n}`)
      }
    }
  }

  async function order(person: Person, name: string): Promise<void> {
    const submission = { key: `${calm ? 'calm' : 'order'}-${name}`, ...anyOperation() }
    if (random.chance(0.05)) await submitWrong(person, name)
    const id = await submit(person, submission)
    if (id === undefined) return
    if (random.chance(0.1)) await submit(person, submission, 1000)
    if (random.chance(0.03)) await submitOther(person, submission)
    const watching = (random.chance(0.15) ? stream(person, id) : look(person, id)).finally(() =>
      looking.delete(watching),
    )
    looking.set(watching, person)
  }

  function lookingOf(person: Person): Promise<void>[] {
    return [...looking].flatMap(([watching, whose]) => (whose === person ? [watching] : []))
  }

  function anyOperation(): Pick<Submission, 'type' | 'input'> {
    const from = random.pick(['USD', 'USD', 'EUR'])
    if (random.chance(0.15)) return { type: 'store-rates', input: { base: from } }
    const to = random.pick(['ARS', 'JPY', 'KWD', 'BTC'])
    const amount = `${random.integer(0, 40)}.${String(random.integer(1, 99_999_999)).padStart(8, '0')}`
    return { type: 'convert', input: { from, to, amount } }
  }

  /** Sends until it is acknowledged or refused for good, always with the same key. Resolves to the operation's id. */
  async function submit(person: Person, submission: Submission, firstAttempt = 0): Promise<string | undefined> {
    const { key, type, input } = submission
    const giveUpMs = performance.now() + GIVE_UP_AFTER_MS
    for (let attempt = firstAttempt; performance.now() < giveUpMs; attempt++) {
      const note = { user: person.id, key, attempt }
      const wait = random.chance(0.2) ? { Prefer: 'wait=5' } : {}
      history.add({ kind: 'submit', atMs: Date.now(), ...note, type, input })
      const answer = await ask('POST', '/operations', {
        token: person.token,
        body: { type, input },
        headers: { 'Idempotency-Key': key, ...wait },
      })
      if (!('body' in answer)) {
        history.add({ kind: 'unknown', atMs: Date.now(), ...note, reason: answer.reason })
      } else {
        const { status, body } = answer
        const operation = v.is(SeenOperation, body) ? body : undefined
        const code = v.is(Problem, body) ? body.code : undefined
        history.add({
          kind: 'answer',
          atMs: Date.now(),
          ...note,
          status,
          ...(code && { code }),
          ...(operation && { operation }),
        })
        if (operation) {
          if (!owners.has(operation.id)) count += 1
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

  /** What must be refused, and leave nothing behind. */
  async function submitWrong(person: Person, name: string): Promise<void> {
    const input = random.pick([
      { from: 'USD', to: 'ARS', amount: '-1' },
      { from: 'USD', to: 'XYZW', amount: '1' },
      { from: 'USD', to: 'ARS', amount: '1e3' },
    ])
    await submit(person, { key: `wrong-${name}`, type: 'convert', input })
  }

  /** Another operation with a key that is taken. */
  async function submitOther(person: Person, { key }: Submission): Promise<void> {
    await submit(person, { key, type: 'convert', input: { from: 'USD', to: 'ARS', amount: '0.01' } }, 2000)
  }

  async function look(person: Person, id: string): Promise<void> {
    const enoughMs = performance.now() + LOOK_FOR_MS
    for (let tries = 0; performance.now() < enoughMs && !stopped(); tries++) {
      await pause(tries)
      if (await see(person, id, 'get', anyUrl())) return
    }
  }

  /** Whether the operation is terminal. */
  async function see(person: Person, id: string, how: 'get' | 'last', url: string): Promise<boolean> {
    const answer = await ask('GET', `/operations/${id}`, { token: person.token, url })
    if (!('body' in answer)) return false
    if (answer.status === 401) await logIn(person)
    const operation = v.is(SeenOperation, answer.body) ? answer.body : undefined
    if (answer.status !== 401)
      history.add({
        kind: 'seen',
        atMs: Date.now(),
        user: person.id,
        id,
        how,
        status: answer.status,
        ...(operation && { operation }),
      })
    return operation !== undefined && operation.status !== 'pending'
  }

  async function stream(person: Person, id: string): Promise<void> {
    try {
      const response = await fetch(`${anyUrl()}/operations/${id}/stream`, {
        headers: { authorization: `Bearer ${person.token}`, accept: 'text/event-stream' },
        signal: AbortSignal.any([AbortSignal.timeout(20_000), stopping.signal]),
      })
      const text = await response.text()
      for (const [, data] of text.matchAll(/^data: (\{.*)$/gm)) {
        const operation: unknown = JSON.parse(data ?? '')
        if (v.is(SeenOperation, operation))
          history.add({ kind: 'seen', atMs: Date.now(), user: person.id, id, how: 'stream', status: 200, operation })
      }
    } catch {
      // The stream was cut: what it had said is lost, and the client looks itself.
    }
    await look(person, id)
  }

  async function pause(tries: number): Promise<void> {
    await Bun.sleep(Math.min(100 * 2 ** tries, LONGEST_PAUSE_MS) * (0.5 + random.next() / 2))
  }

  const lives = Array.from({ length: people }, (_, number) => live(number))
  return {
    calm() {
      calm = true
    },
    async stop() {
      stopping.abort()
      await Promise.all(lives)
      await Promise.all(looking.keys())
    },
    async lookAgain() {
      unseen ??= [...owners].flatMap(([id, person]) => urls.map((url) => ({ id, person, url })))
      const asked = unseen
      unseen = []
      await Promise.all(
        Array.from({ length: LOOKERS }, async () => {
          for (let next = asked.pop(); next; next = asked.pop())
            if (!(await see(next.person, next.id, 'last', next.url))) unseen?.push(next)
        }),
      )
      return unseen.length
    },
    get acknowledged() {
      return count
    },
  }
}
