import type { Admin } from 'kafkajs'
import { within } from '../../service/deadline.ts'
import type { Client, Connect } from './client.ts'

const PING_TIMEOUT_MS = 2900
/** Whoever asks within this gets the answer that was given last. */
const FRESH_MS = 1000

/** Asks the broker for its cluster: rejects within 3 s where no answer comes. */
export function createPing(connect: Connect): () => Promise<void> {
  let current: { readonly client: Client; readonly admin: Promise<Admin> } | undefined
  let last: { readonly answer: Promise<void>; settledAtMs: number | undefined } | undefined

  async function ask(): Promise<void> {
    try {
      current ??= open()
      const { admin } = current
      await within(
        admin.then((each) => each.describeCluster()),
        PING_TIMEOUT_MS,
        'The answer',
      )
    } catch (error) {
      drop()
      throw new Error('The broker does not answer.', { cause: error })
    }
  }

  function open() {
    const client = connect()
    const admin = client.kafka.admin()
    return { client, admin: admin.connect().then(() => admin) }
  }

  function drop(): void {
    current?.client.kill()
    current?.admin.catch(() => {})
    current = undefined
  }

  return () => {
    const known = last
    if (known && (known.settledAtMs === undefined || performance.now() - known.settledAtMs < FRESH_MS))
      return known.answer
    const asked: { answer: Promise<void>; settledAtMs: number | undefined } = { answer: ask(), settledAtMs: undefined }
    last = asked
    const settle = () => {
      asked.settledAtMs = performance.now()
    }
    asked.answer.then(settle, settle)
    return asked.answer
  }
}
