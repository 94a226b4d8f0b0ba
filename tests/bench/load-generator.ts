// Sends requests from a process of its own, so that they take no time of the process that measures.
import * as v from 'valibot'

const Load = v.object({
  url: v.string(),
  expectedStatus: v.number(),
  /** Each connection sends its next request when the last one is answered. */
  requestsPerConnection: v.number(),
  connections: v.array(v.object({ headers: v.record(v.string(), v.string()), body: v.string() })),
})
export type Load = v.InferOutput<typeof Load>

const Sent = v.union([v.object({ elapsedMs: v.number() }), v.object({ fault: v.string() })])

const REQUEST_TIMEOUT_MS = 30_000

export interface LoadGenerator {
  /** Resolves to how long it took until all was answered, in ms. @throws Error where an answer has another status. */
  send(load: Load): Promise<number>
  stop(): Promise<void>
}

export function startLoadGenerator(): LoadGenerator {
  let answered: PromiseWithResolvers<unknown> | undefined
  const child = Bun.spawn([process.execPath, import.meta.path], {
    stdio: ['ignore', 'inherit', 'inherit'],
    ipc: (message) => answered?.resolve(message),
    onExit: () => answered?.reject(new Error('The load generator ended.')),
  })
  return {
    async send(load) {
      answered = Promise.withResolvers()
      child.send(load)
      const sent = v.parse(Sent, await answered.promise)
      if ('fault' in sent) throw new Error(sent.fault)
      return sent.elapsedMs
    },
    async stop() {
      child.kill()
      await child.exited
    },
  }
}

async function send({ url, expectedStatus, requestsPerConnection, connections }: Load): Promise<number> {
  const startedMs = performance.now()
  await Promise.all(
    connections.map(async ({ headers, body }) => {
      for (let sent = 0; sent < requestsPerConnection; sent++) {
        const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS)
        const response = await fetch(url, { method: 'POST', headers, body, signal })
        const text = await response.text()
        if (response.status !== expectedStatus)
          throw new Error(`Expected ${expectedStatus}, but got ${response.status} ${text}`)
      }
    }),
  )
  return performance.now() - startedMs
}

if (import.meta.main) {
  // The process that measures has ended.
  process.on('disconnect', () => process.exit())
  process.on('message', (message) => {
    send(v.parse(Load, message)).then(
      (elapsedMs) => process.send?.({ elapsedMs }),
      (error: unknown) => process.send?.({ fault: String(error) }),
    )
  })
}
