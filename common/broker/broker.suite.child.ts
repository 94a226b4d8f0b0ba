import { writeSync } from 'node:fs'
import type { Group, Topic } from '../messages/topics.ts'
import type { Broker } from './broker.ts'

/** How another process opens the same broker: it calls the function `open` of `module` with `options`, which are JSON. */
export interface ChildTarget {
  /** The file's absolute path. */
  readonly module: string
  readonly open: string
  readonly options: unknown
}

/** What a child process does. It ends when its standard input ends, so that none outlives the tests. */
export type ChildTask =
  /** Publishes the texts under one key, in one call, writes their positions, and sends itself SIGKILL. */
  | { readonly publish: { readonly topic: Topic; readonly key: string; readonly texts: readonly string[] } }
  /**
   * Writes `open` once it has subscribed, and the position and text of each message. With `hang` the handler then waits for
   * a line on standard input, commits, and writes `resumed`.
   */
  | { readonly subscribe: { readonly group: Group; readonly topics: readonly Topic[]; readonly hang: boolean } }

const write = (line: unknown) => writeSync(1, `${JSON.stringify(line)}\n`)

const given: { target: ChildTarget; task: ChildTask } = JSON.parse(process.argv[2] ?? '')
const { target, task } = given
process.stdin.on('end', () => process.exit(1)).resume()
const line = new Promise((resolve) => process.stdin.once('data', resolve))

const broker: Broker = await (await import(target.module))[target.open](target.options)

if ('publish' in task) {
  const { topic, key, texts } = task.publish
  const positions = await broker.publish(texts.map((text) => ({ topic, key, value: Buffer.from(text), headers: [] })))
  for (const position of positions) write(position)
  process.kill(process.pid, 'SIGKILL')
} else {
  const { group, topics, hang } = task.subscribe
  await broker.subscribe(group, topics, async ({ topic, partition, messages, commit }) => {
    for (const { offset, value } of messages) {
      write({ topic, partition, offset, text: value && Buffer.from(value).toString() })
    }
    if (!hang) return
    await line
    await commit((messages.at(-1)?.offset ?? 0) + 1)
    write('resumed')
  })
  write('open')
}
