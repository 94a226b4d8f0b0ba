import type { Admin } from 'kafkajs'
import { within } from '../../service/deadline.ts'
import type { Client, Connect } from './client.ts'

const PING_TIMEOUT_MS = 2900
/** An answer is reused for this long. */
const FRESH_MS = 1000

/** Asks the broker to describe its cluster. Rejects within 3 s where it does not answer. */
export function createPing(connect: Connect): () => Promise<void> {
  let current: { readonly client: Client; readonly admin: Promise<Admin> } | undefined
  /** `answeredAtMs` is infinite until the answer has come. */
  let last: { readonly answer: Promise<void>; readonly answeredAtMs: number } | undefined

  async function ask(): Promise<void> {
    try {
      current ??= open()
      const described = current.admin.then((admin) => admin.describeCluster())
      await within(described, PING_TIMEOUT_MS, 'The answer')
    } catch (error) {
      current?.client.kill()
      current?.admin.catch(() => {})
      current = undefined
      throw new Error('The broker does not answer.', { cause: error })
    }
  }

  function open() {
    const client = connect()
    const admin = client.kafka.admin()
    return { client, admin: admin.connect().then(() => admin) }
  }

  return () => {
    if (last && performance.now() - last.answeredAtMs < FRESH_MS) return last.answer
    const asked = { answer: ask(), answeredAtMs: Number.POSITIVE_INFINITY }
    const answered = () => {
      asked.answeredAtMs = performance.now()
    }
    asked.answer.then(answered, answered)
    last = asked
    return asked.answer
  }
}
